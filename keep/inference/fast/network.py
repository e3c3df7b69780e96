"""The accelerated network: which parts of KEEP are replaced, and in which precision and layout each runs."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from keep.archs.blocks import GroupNormSiLU, ResBlock, Upsample
from keep.archs.keep import KEEP, GradHalf, KalmanState, KalmanStep
from keep.flow.gmflow import GMFlow
from keep.inference.fast.compiled import CompileCache
from keep.inference.fast.graphs import GraphCache
from keep.inference.fast.modules import ChannelsLastGroupNorm, FusedUpsample, InPlaceResBlock, replace_modules
from keep.inference.fast.precision import keep_float32_parts, reduce_flow
from keep.kernels.norm_layers import kernel_device
from keep.utils.dtypes import parse_dtype

FRAMES_AT_ONCE = 8
"""Frames of every clip in one batch of E_L and of the flow on a GPU. On a CPU, a batch is no faster than single
frames and needs more memory."""


def accelerate(
    net: KEEP,
    dtype: torch.dtype | str = torch.float32,
    channels_last: bool = True,
    fuse_upsample: bool = True,
    compile: bool = False,
    graphs: bool = False,
) -> KEEP:
    """A copy of ``net`` that restores faster, for inference only. ``net`` itself does not change.

    In every copy, residual blocks work in place, E_L processes a long clip in pieces, and GMFlow computes the features
    of each frame once instead of once per pair. With fused upsampling, the state dict of the copy does not fit
    ``net``: load weights first.

    Args:
        net: the network, with its weights loaded, on the device where the copy will run.
        dtype: precision of weights and of most arithmetic. In bfloat16 and float16 these parts stay float32: the
            flow estimator, except GMFlow's features in bfloat16; the Kalman filter network, its update, and the last
            norm and convolution of the encoders, which compute the codes it works on; the last layers of T_Q, so that
            rounding causes no ties in the argmax over codes; the generator's last norm and convolution, so that the
            image is not rounded to 8 bits. Input and output are float32.
        channels_last: store images and convolution weights with the channels innermost. The flow estimator is
            excluded: it does not get faster. On CUDA, GroupNorm and SiLU then run as one kernel.
        fuse_upsample: replace each nearest ×2 and 3×3 convolution by one transposed convolution
            (:class:`FusedUpsample`).
        compile: ``torch.compile`` the sub-networks. The first clip then takes minutes, unless an earlier process
            compiled the same network for the same shapes (:mod:`keep.inference.fast.compiled`).
        graphs: on CUDA, run the steps of the recurrence as CUDA graphs (:mod:`keep.inference.fast.graphs`): a step
            starts as one unit instead of some hundred kernels. Its memory is held as long as the network. No effect
            on the CPU.

    Raises:
        UserError: an unknown dtype.
    """
    dtype = parse_dtype(dtype)
    fast = FastKEEP(copy.deepcopy(net), graphs).eval().requires_grad_(False)
    parts = [part for name, part in fast.named_children() if name != "flownet"]
    replacements: dict[type, Callable[[Any], nn.Module]] = {ResBlock: InPlaceResBlock}
    if fuse_upsample:
        replacements[Upsample] = FusedUpsample
    if channels_last:
        norm = partial(ChannelsLastGroupNorm, device=kernel_device(next(net.parameters()).device))
        replacements |= {nn.GroupNorm: norm, GroupNormSiLU: norm}
    for part in parts:
        replace_modules(part, replacements)
        if dtype != torch.float32:
            part.to(dtype)
        if channels_last:
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if dtype != torch.float32:
        keep_float32_parts(fast)
        reduce_flow(fast, dtype)
    if compile:
        fast.compile_parts()
    return fast


class FastKEEP(KEEP):
    """:class:`KEEP` that limits the memory of E_L over long clips and shares GMFlow's features between pairs.

    Args:
        net: the network; its parts are shared.
        graphs: run the steps of the recurrence as CUDA graphs.

    Attributes:
        graphs: the captured steps; None: steps are not captured.
        kernels: the compiled kernels; None: nothing is compiled.
    """

    def __init__(self, net: KEEP, graphs: bool = False) -> None:
        nn.Module.__init__(self)  # not KEEP's, which would build new parts
        for name, value in vars(net).items():
            if not name.startswith("_"):
                setattr(self, name, value)
        for name, part in net.named_children():
            setattr(self, name, part)
        self.graphs = GraphCache() if graphs else None
        self.kernels: CompileCache | None = None
        self._decode: Callable[..., Any] = super().decode
        self._longest = 0

    def compile_parts(self) -> None:
        """``torch.compile`` E_L, E_H, T_Q and the decoder; not the Kalman filter network, which is small and runs on
        many lengths of clips."""
        self.kernels = CompileCache(self)
        for part in (self.lq_encoder, self.hq_encoder, self.code_transformer):
            part.compile(dynamic=False)
        self._decode = torch.compile(super().decode, dynamic=False)

    def _apply(self, *args: Any, **kwargs: Any) -> "FastKEEP":
        if self.graphs is not None:  # weights move
            self.graphs.clear()
        return super()._apply(*args, **kwargs)

    def observe(self, lq: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        pieces = [self._observe(piece) for piece in lq.split(self._frames_at_once(lq), dim=1)]
        if len(pieces) == 1:
            return pieces[0]
        scales = pieces[0][1].keys()
        return torch.cat([z for z, _ in pieces], dim=1), {s: torch.cat([f[s] for _, f in pieces], 1) for s in scales}

    def _observe(self, lq: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """E_L of at most :data:`FRAMES_AT_ONCE` frames. Compiled, a shorter piece is filled up: no new shape."""
        if self.kernels is None:
            return super().observe(lq)
        n = lq.shape[1]
        self._longest = max(self._longest, n)
        if n < self._longest:
            lq = torch.cat([lq, lq[:, -1:].expand(-1, self._longest - n, -1, -1, -1)], dim=1)
        self.kernels.load(tuple(lq.shape), lq.device)
        z, features = super().observe(lq)
        return z[:, :n], {scale: feature[:, :n] for scale, feature in features.items()}

    @staticmethod
    def _frames_at_once(lq: Tensor) -> int:
        return 1 if lq.device.type == "cpu" else FRAMES_AT_ONCE

    @torch.no_grad()
    def estimate_flows(self, lq: Tensor) -> Tensor:
        # A single pair has nothing to share; for other sizes, GMFlow raises its own error.
        if isinstance(self.flownet, GMFlow) and lq.shape[1] > 2 and self.image_size % 16 == 0:
            return self.flownet.clip(lq, self._frames_at_once(lq))
        return super().estimate_flows(lq)

    def step(
        self,
        z_obs: Tensor,
        gain: Tensor | None,
        features: dict[int, Tensor],
        *,
        flow: Tensor | None = None,
        state: KalmanState | None = None,
        w: float = 1.0,
        use_cft: bool = True,
        use_cfa: bool = True,
        grad: GradHalf = "both",
    ) -> tuple[KalmanStep, KalmanState]:
        options: dict[str, Any] = {"w": w, "use_cft": use_cft, "use_cfa": use_cfa}
        if self.graphs is None or state is None or gain is None or flow is None:
            result = super().step(z_obs, gain, features, flow=flow, state=state, grad=grad, **options)
        else:
            maps = features if use_cft else {}
            result = self._captured_step(self.graphs, (z_obs, gain, flow, state.output), maps, state.memory, options)
        if self.kernels is not None:
            self.kernels.save((z_obs.shape, state is None, *options.values()))
        return result

    def _captured_step(
        self,
        graphs: GraphCache,
        fixed: tuple[Tensor, ...],
        features: dict[int, Tensor],
        memory: dict[int, Tensor],
        options: dict[str, Any],
    ) -> tuple[KalmanStep, KalmanState]:
        """A step after the first. ``fixed``: z̃_t, K_t, Φ, ŷ_{t-1}."""

        def step(z_obs: Tensor, gain: Tensor, flow: Tensor, output: Tensor, *maps: Tensor) -> list[Tensor]:
            last = KalmanState(output, dict(zip(memory, maps[len(features) :], strict=True)))
            own = dict(zip(features, maps, strict=False))
            s, state = super(FastKEEP, self).step(z_obs, gain, own, flow=flow, state=last, **options)
            assert s.warped is not None
            assert s.z_prior is not None
            return [s.output, s.z_post, s.logits, s.codes, s.warped, s.z_prior, *state.memory.values()]

        inputs = [*fixed, *features.values(), *memory.values()]
        found = graphs(step, inputs, (tuple(features), tuple(memory), *options.values()))
        scales = [s for s in self.generator.fuse_at.values() if options["use_cfa"] and str(s) in self.cfa]
        return KalmanStep(*found[:6]), KalmanState(found[0], dict(zip(scales, found[6:], strict=True)))

    def decode(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[int, Tensor]]:
        return self._decode(*args, **kwargs)
