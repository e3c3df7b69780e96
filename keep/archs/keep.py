"""KEEP: Kalman-inspired feature propagation (supplement, Algorithm 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from keep.archs.cfa import CFA
from keep.archs.cft import CFT
from keep.archs.code_transformer import CodeTransformer
from keep.archs.evidence import clip_evidence
from keep.archs.kalman import KalmanFilter
from keep.archs.sizes import Sizes
from keep.archs.vqgan import Codebook, Encoder, Generator, LQEncoder
from keep.config.registry import ARCHS, Flow
from keep.flow.warp import warp
from keep.utils.errors import UserError
from keep.utils.ranges import Depth, Side, Width

GradHalf = Literal["both", "codes", "decoder"]


@dataclass
class KalmanState:
    """The state that frame t - 1 passes to frame t. Its size does not depend on the length of the clip.

    Attributes:
        output: ŷ_{t-1} (B, 3, S, S), detached.
        memory: CFA's features v_{t-1}, scale → (B, C, scale, scale); empty without CFA.
    """

    output: Tensor
    memory: dict[int, Tensor]


@dataclass
class KalmanStep:
    """One frame of Algorithm 1. The first frame has no prediction: ``warped`` and ``z_prior`` are None.

    Attributes:
        output: ŷ_t (B, 3, S, S).
        z_post: ẑ⁺_t (B, C, h, w).
        logits: T_Q's prediction (B, h·w, K).
        codes: their argmax (B, h·w).
        warped: ω(ŷ_{t-1}, Φ) (B, 3, S, S).
        z_prior: ẑ⁻_t (B, C, h, w).
    """

    output: Tensor
    z_post: Tensor
    logits: Tensor
    codes: Tensor
    warped: Tensor | None = None
    z_prior: Tensor | None = None


@dataclass
class KEEPOutput:
    """All states of a clip. Shapes (B, T, …); ``z_prior`` and ``warped`` (B, T - 1, …), from t = 2 on.

    Attributes:
        output: ŷ (B, T, 3, S, S), in about [-1, 1], not clamped.
        z_obs: z̃, E_L's codes (B, T, C, h, w).
        gains: K (B, T, 1, h, w); the first is unused, since ẑ⁺_1 = z̃_1.
        z_prior: ẑ⁻ (B, T - 1, C, h, w).
        z_post: ẑ⁺ (B, T, C, h, w).
        logits: (B, T, h·w, K).
        codes: (B, T, h·w).
        warped: ω(ŷ_{t-1}, Φ) (B, T - 1, 3, S, S).
        evidence: the maps of :data:`keep.archs.evidence.EVIDENCE` (B, T, maps, S/8, S/8); None if not asked for.
    """

    output: Tensor
    z_obs: Tensor
    gains: Tensor
    z_prior: Tensor
    z_post: Tensor
    logits: Tensor
    codes: Tensor
    warped: Tensor
    evidence: Tensor | None = None


@ARCHS.register()
class KEEP(nn.Module):
    """KEEP, the complete restorer: E_L, E_H, Kalman filter network, T_Q, codebook, generator with CFT and CFA, flow.

    The defaults are the released configuration (158.49 M parameters with GMFlow).

    Args:
        sizes: sizes of the feature maps of encoders and generator.
        codebook_size: number of codes.
        transformer_width: width of T_Q.
        transformer_heads: attention heads of T_Q.
        transformer_layers: layers of T_Q.
        transformer_mlp_width: inner width of T_Q's MLPs.
        kalman_blocks: uncertainty blocks of the Kalman filter network.
        kalman_heads: attention heads of the Kalman filter network.
        kalman_head_dim: channels of each of these heads.
        kalman_gain_blocks: residual blocks of the gain network.
        temporal: what a gain depends on. ``causal``: only z̃_1, z̃_{t-1} and z̃_t (Algorithm 1; can be streamed).
            ``clip``: all frames of the clip (the public weights).
        cft_scales: sides of the feature maps at which CFT acts in the generator.
        cfa_scales: sides of the feature maps at which CFA acts in the generator.
        cfa_heads: heads of CFA.
        cfa_head_dim: channels of each of these heads.
        flow: flow estimator, kept frozen. Without one, every clip needs its flows.

    Attributes:
        checkpoint_decoder: training does not store the decoder's activations but recomputes them in the backward pass:
            less memory, more time, the same results. False by default.
        checkpoint_encoder: the same for E_L, which then encodes one frame of every clip at a time: gradients differ in
            rounding. False by default.
    """

    def __init__(
        self,
        sizes: Sizes,
        codebook_size: Width = 1024,
        transformer_width: Width = 512,
        transformer_heads: Depth = 8,
        transformer_layers: Depth = 9,
        transformer_mlp_width: Width = 1024,
        kalman_blocks: Depth = 3,
        kalman_heads: Depth = 8,
        kalman_head_dim: Width = 48,
        kalman_gain_blocks: Depth = 3,
        temporal: Literal["clip", "causal"] = "clip",
        cft_scales: tuple[Side, ...] = (16, 32, 64),
        cfa_scales: tuple[Side, ...] = (16, 32),
        cfa_heads: Depth = 4,
        cfa_head_dim: Width = 256,
        flow: Flow | None = None,
    ) -> None:
        super().__init__()
        sizes.check_scales("cft_scales", cft_scales)
        sizes.check_scales("cfa_scales", cfa_scales)
        width, groups, latent_dim = sizes.widths, sizes.norm_groups, sizes.latent_dim
        self.image_size, self.latent_size = sizes.image_size, sizes.scales[-1]
        self.checkpoint_decoder = self.checkpoint_encoder = False

        self.lq_encoder = LQEncoder(sizes, feature_scales=cft_scales)
        self.hq_encoder = Encoder(sizes)
        self.kalman_filter = KalmanFilter(
            latent_dim, kalman_heads, kalman_head_dim, kalman_blocks, kalman_gain_blocks, temporal, groups
        )
        self.code_transformer = CodeTransformer(
            tokens=self.latent_size**2,
            latent_dim=latent_dim,
            codebook_size=codebook_size,
            width=transformer_width,
            heads=transformer_heads,
            layers=transformer_layers,
            mlp_width=transformer_mlp_width,
        )
        self.codebook = Codebook(codebook_size, latent_dim)
        self.generator = Generator(sizes)
        self.cft = nn.ModuleDict({str(s): CFT(width[s], groups) for s in cft_scales})
        self.cfa = nn.ModuleDict({str(s): CFA(width[s], cfa_heads, cfa_head_dim) for s in cfa_scales})
        self.flownet = None if flow is None else flow.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "KEEP":
        super().train(mode)
        if self.flownet is not None:
            self.flownet.eval()  # frozen: batch norms must not adapt to the training clips
        return self

    def forward(
        self,
        lq: Tensor,
        flows: Tensor | None = None,
        *,
        w: float = 1.0,
        use_cft: bool = True,
        use_cfa: bool = True,
        use_filter: bool = True,
        grad: GradHalf = "both",
        return_states: bool = False,
        evidence: bool = False,
    ) -> Tensor | KEEPOutput:
        """Restore clips (Algorithm 1).

        The argmax over codes splits the graph into two halves. ``grad`` selects which halves keep gradients: ``codes``
        (stage II): everything up to logits and z̃, that is E_L, Kalman filter network and T_Q; ``decoder``
        (stage III): the generator with CFT and CFA. E_H and the flow never have gradients, and ŷ_{t-1} is detached
        before it is warped.

        Args:
            lq: low-quality frames, upsampled to the output's size: (B, T, 3, S, S) in [-1, 1].
            flows: (B, T - 1, 2, S, S) in pixels; ``flows[:, t - 1]`` is the flow from frame t to frame t - 1 (t from
                0). None: estimated on ``lq``.
            w: fidelity weight of CFT.
            use_cft: apply CFT; not in stage II.
            use_cfa: apply CFA; not in stage II.
            use_filter: False is the ablation without Kalman filter, flow and CFA: every frame is restored as a first
                frame, ẑ⁺_t = z̃_t, all at once. The output then has no gains, predictions or warped frames.
            grad: the half of the network that keeps gradients, or both.
            return_states: return a :class:`KEEPOutput` instead of only ŷ.
            evidence: with ``return_states`` and the filter, also measure the evidence; it changes nothing else.

        Returns:
            ŷ (B, T, 3, S, S) in about [-1, 1], or a :class:`KEEPOutput`.

        Raises:
            UserError: frames or flows have another size, or there are neither flows nor a flow estimator.
        """
        self._check(lq, flows)
        with _grad(grad != "decoder"):
            z_obs, features = self.observe(lq)
        if not use_filter:
            return self._each_frame(z_obs, features, w=w, use_cft=use_cft, grad=grad, return_states=return_states)
        with _grad(grad != "decoder"):
            gains = self.kalman_filter(z_obs)
        if flows is None:
            flows = self.estimate_flows(lq)

        steps: list[KalmanStep] = []
        state = None
        for t in range(lq.shape[1]):
            step, state = self.step(
                z_obs[:, t],
                gains[:, t],
                {scale: feature[:, t] for scale, feature in features.items()},
                flow=flows[:, t - 1] if t else None,
                state=state,
                w=w,
                use_cft=use_cft,
                use_cfa=use_cfa,
                grad=grad,
            )
            steps.append(step)
        output = torch.stack([s.output for s in steps], dim=1)
        if not return_states:
            return output
        return KEEPOutput(
            output=output,
            z_obs=z_obs,
            gains=gains,
            z_prior=_stack([s.z_prior for s in steps[1:]], like=z_obs),
            z_post=torch.stack([s.z_post for s in steps], dim=1),
            logits=torch.stack([s.logits for s in steps], dim=1),
            codes=torch.stack([s.codes for s in steps], dim=1),
            warped=_stack([s.warped for s in steps[1:]], like=output),
            evidence=self.evidence(lq, steps, z_obs, gains, flows) if evidence else None,
        )

    def evidence(
        self,
        lq: Tensor,
        steps: Sequence[KalmanStep],
        z_obs: Tensor,
        gains: Tensor,
        flows: Tensor,
        before: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """What supports the output of these steps; see :func:`keep.archs.evidence.clip_evidence`."""
        codes = self.codebook.embedding.weight
        return clip_evidence(lq, steps, z_obs, gains, flows, codes=codes, before=before, sizes=sizes)

    def _each_frame(
        self, z_obs: Tensor, features: dict[int, Tensor], *, return_states: bool, **options: Any
    ) -> Tensor | KEEPOutput:
        """Restore all frames of (B, T, …) as first frames."""
        first = {scale: feature.flatten(0, 1) for scale, feature in features.items()}
        step, _ = self.step(z_obs.flatten(0, 1), None, first, use_cfa=False, **options)
        output, logits, codes = (x.unflatten(0, z_obs.shape[:2]) for x in (step.output, step.logits, step.codes))
        if not return_states:
            return output
        none = z_obs[:, :0]
        return KEEPOutput(output, z_obs, none[:, :, :1], none, z_obs, logits, codes, warped=output[:, :0])

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
        """One iteration of Algorithm 1. Without ``state`` this is the first frame, with ẑ⁺_1 = z̃_1.

        Args:
            z_obs: z̃_t (B, C, h, w).
            gain: K_t (B, 1, h, w); needed with ``state``.
            features: F_e of frame t, scale → (B, C, scale, scale).
            flow: Φ, from frame t to frame t - 1, (B, 2, S, S) in pixels; needed with ``state``.
            state: the state returned by the previous step.
            w: fidelity weight of CFT.
            use_cft: apply CFT.
            use_cfa: apply CFA.
            grad: the half of the network that keeps gradients, as in :meth:`forward`.
        """
        with _grad(grad != "decoder"):
            if state is None:
                warped = z_prior = None
                z_post = z_obs
            else:
                assert flow is not None, "every frame but the first needs its flow"
                assert gain is not None, "every frame but the first needs its gain"
                # State prediction
                with torch.no_grad():
                    warped = warp(state.output, flow)
                    z_prior = self.hq_encoder(warped)
                # State update
                z_post = (1 - gain) * z_prior + gain * z_obs
            logits = self.code_transformer(z_post)
            codes = logits.argmax(-1)
        with torch.no_grad():
            z_q = self.codebook.lookup(codes, *z_obs.shape[-2:])
        decode = partial(checkpoint, self.decode, use_reentrant=False) if self.checkpoint_decoder else self.decode
        with _grad(grad != "codes"):
            output, memory = decode(
                z_q, features if use_cft else None, state.memory if state else {}, w=w, use_cfa=use_cfa
            )
        return KalmanStep(output, z_post, logits, codes, warped, z_prior), KalmanState(output.detach(), memory)

    def observe(self, lq: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """E_L: (B, T, 3, S, S) → z̃ (B, T, C, h, w) and F_e, scale → (B, T, C, scale, scale).

        All frames at once. With ``checkpoint_encoder`` frame by frame, or the backward pass would compute the
        activations of all frames again at once and nothing would be saved.
        """
        if self.checkpoint_encoder:
            frames = [checkpoint(self.lq_encoder, frame, use_reentrant=False) for frame in lq.unbind(1)]
            z = torch.stack([z for z, _ in frames], dim=1)
            return z, {scale: torch.stack([f[scale] for _, f in frames], dim=1) for scale in frames[0][1]}
        z, features = self.lq_encoder(lq.flatten(0, 1))
        split = lq.shape[:2]
        return z.unflatten(0, split), {scale: f.unflatten(0, split) for scale, f in features.items()}

    @torch.no_grad()
    def estimate_flows(self, lq: Tensor) -> Tensor:
        """The flow of every frame but the first to the one before it: (B, T, 3, S, S) → (B, T - 1, 2, S, S)."""
        b, t, _, h, w = lq.shape
        if t == 1:
            return lq.new_zeros(b, 0, 2, h, w)
        if self.flownet is None:
            raise UserError("the clip has no flows, and KEEP has no flow estimator: set its `flow` option")
        return self.flownet(lq[:, 1:].flatten(0, 1), lq[:, :-1].flatten(0, 1)).unflatten(0, (b, t - 1))

    def decode(
        self,
        z_q: Tensor,
        features: dict[int, Tensor] | None,
        memory: dict[int, Tensor],
        *,
        w: float = 1.0,
        use_cfa: bool = True,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The generator with, at each scale, CFT and then CFA.

        Args:
            z_q: quantised code (B, C, h, w).
            features: F_e for CFT; None: no CFT.
            memory: v_{t-1} for CFA; empty at the first frame, which has no CFA.
            w: fidelity weight of CFT.
            use_cfa: apply CFA.

        Returns:
            ŷ_t (B, 3, S, S), and v_t: the ``memory`` of the next frame.
        """
        new_memory: dict[int, Tensor] = {}

        def fuse(scale: int, x: Tensor) -> Tensor:
            if features is not None and str(scale) in self.cft:
                x = self.cft[str(scale)](features[scale], x, w)
            if use_cfa and str(scale) in self.cfa:
                if memory:
                    x = self.cfa[str(scale)](x, memory[scale])
                new_memory[scale] = x
            return x

        return self.generator(z_q, fuse), new_memory

    def _check(self, lq: Tensor, flows: Tensor | None) -> None:
        size = self.image_size
        if lq.dim() != 5 or lq.shape[1] < 1 or lq.shape[2:] != (3, size, size):
            raise UserError(f"KEEP restores clips (B, T, 3, {size}, {size}) with T ≥ 1; got {tuple(lq.shape)}")
        b, t = lq.shape[:2]
        if flows is not None and flows.shape != (b, t - 1, 2, size, size):
            raise UserError(f"flows of this clip must be ({b}, {t - 1}, 2, {size}, {size}); got {tuple(flows.shape)}")


def _grad(wanted: bool) -> torch.set_grad_enabled:
    """Enable gradients in this context if ``wanted`` and enabled by the caller."""
    return torch.set_grad_enabled(wanted and torch.is_grad_enabled())


def _stack(frames: list[Tensor | None], like: Tensor) -> Tensor:
    """Frames (B, …) → (B, T - 1, …), also for T = 1."""
    return torch.stack([f for f in frames if f is not None], dim=1) if frames else like[:, :0]
