"""One frame of the recurrence as a function of tensors alone: what ONNX and AOTInductor can store."""

from dataclasses import replace

import torch
import torch.nn as nn
from torch import Tensor

from keep.archs.keep import KEEP
from keep.flow.warp import warp
from keep.inference.exported.manifest import Port
from keep.inference.streaming import CONTEXT

COUNT = "state_count"
"""Number of frames restored before this one. 0 starts a clip: the other states are then not used."""


class Step(nn.Module):
    """``step(frame, [flow,] fidelity, state…) → (restored, gain, chosen, next state…)``, Algorithm 1 for one frame.

    The states of a new clip are zeros. Each clip of a batch has its own ``state_count``, so they may begin at
    different times.

    The results are those of :class:`keep.inference.streaming.Streamer`. A ``clip`` network has no fixed number of codes
    in its first frames: unfilled places contain the clip's first code, and are masked in the attention over time.

    Args:
        net: the network, in evaluation mode; its parts are shared.
        context: number of earlier frames that determine a gain of a ``clip`` network.
        own_flow: estimate the flow inside, from this frame and the last one; else ``flow`` is an input.

    Attributes:
        inputs: ports of the arguments of :meth:`forward`, in order.
        outputs: ports of its results, in order.
    """

    def __init__(self, net: KEEP, context: int = CONTEXT, own_flow: bool = False) -> None:
        super().__init__()
        self.net, self.own_flow = net.eval().requires_grad_(False), own_flow
        self.causal = net.kalman_filter.temporal == "causal"
        self.kept = 2 if self.causal else context + 1
        self.scales = tuple(scale for scale in net.generator.fuse_at.values() if str(scale) in net.cfa)
        side, latent = net.image_size, net.latent_size
        image = (-1, 3, side, side)
        flow = [] if own_flow else [Port("flow", (-1, 2, side, side))]
        states = self._states(image)
        self.inputs = (Port("frame", image), *flow, Port("fidelity", ()), *states)
        self.outputs = (
            Port("restored", image),
            Port("gain", (-1, 1, latent, latent)),
            Port("chosen", (-1, latent**2), "int64"),
            *(replace(port, name=port.name.replace("state_", "next_")) for port in states),
        )

    def _states(self, image: tuple[int, ...]) -> list[Port]:
        net = self.net
        code = (net.codebook.embedding.weight.shape[1], net.latent_size, net.latent_size)
        states = [Port(COUNT, (-1,), "int64"), Port("state_codes", (-1, self.kept, *code)), Port("state_output", image)]
        states += [Port("state_frame", image)] if self.own_flow else []
        dtype = str(next(net.generator.parameters()).dtype).removeprefix("torch.")
        for scale in self.scales:
            channels = net.get_parameter(f"cfa.{scale}.norm1.weight").shape[0]
            states.append(Port(f"state_memory_{scale}", (-1, channels, scale, scale), dtype))
        return states

    def example(self, batch: int = 2) -> tuple[Tensor, ...]:
        """Arguments of :meth:`forward`, as at the start of a clip; the frame is grey."""
        return tuple(port.tensor(batch) for port in self.inputs)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See :attr:`inputs` and :attr:`outputs`: frames in [-1, 1]; flow of this frame to the last one, in pixels."""
        given = dict(zip((port.name for port in self.inputs), inputs, strict=True))
        net, frame, count = self.net, given["frame"], given[COUNT]
        first = (count == 0)[:, None, None, None]
        z, features = net.observe(frame[:, None].to(net.codebook.embedding.weight.dtype))
        z = z[:, 0]
        gain, codes = self._gain(z, given["state_codes"], count, first)
        flow = net.flownet(frame, given["state_frame"]) if self.own_flow else given["flow"]  # type: ignore[misc]
        z_prior = net.hq_encoder(warp(given["state_output"], flow))
        z_post = torch.where(first, z, (1 - gain) * z_prior + gain * z)
        chosen = net.code_transformer(z_post).argmax(-1)
        memory = {scale: given[f"state_memory_{scale}"] for scale in self.scales}
        restored, memory = self._decode(chosen, features, memory, first, given["fidelity"])
        shown = [frame] if self.own_flow else []
        return restored, gain, chosen, count + 1, codes, restored.clone(), *(x.clone() for x in shown), *memory.values()

    def _gain(self, z: Tensor, codes: Tensor, count: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """K_t (B, 1, h, w), and the codes to keep: z̃_1 and the last ones, (B, kept, C, h, w)."""
        codes = torch.where(first[:, None], z[:, None].expand_as(codes), codes)
        if self.causal:
            gain = self.net.kalman_filter.step(codes[:, 0], codes[:, 1], z)
            return gain, torch.stack([codes[:, 0], z], dim=1)
        seen = torch.cat([codes, z[:, None]], dim=1)
        place = torch.arange(self.kept + 1, device=z.device)
        filled = (place == 0) | (place + count[:, None] > self.kept)
        gain = self.net.kalman_filter.last(seen, filled)
        return gain, torch.cat([codes[:, :1], seen[:, 2:]], dim=1)

    def _decode(
        self, chosen: Tensor, features: dict[int, Tensor], memory: dict[int, Tensor], first: Tensor, fidelity: Tensor
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """ŷ_t and v_t, as :meth:`KEEP.decode`; whether a clip has a memory is known only when the graph runs."""
        net, size = self.net, self.net.latent_size
        new: dict[int, Tensor] = {}

        def fuse(scale: int, x: Tensor) -> Tensor:
            if str(scale) in net.cft:
                x = net.cft[str(scale)](features[scale][:, 0], x, fidelity.to(x.dtype))
            if scale in memory:
                x = new[scale] = torch.where(first, x, net.cfa[str(scale)](x, memory[scale]))
            return x

        return net.generator(net.codebook.lookup(chosen, size, size), fuse), new
