"""What the network saw of a frame: maps that say how much of the restored face the input supports.

All maps are on blocks of 8×8 pixels, (S/8, S/8). Nothing here changes what the network restores. The maps are to cost
little beside the network: ``scripts/bench/confidence.py`` measures it.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from keep.flow.warp import sample

BLOCK = 8
"""Side of a block, in pixels of the output."""

EVIDENCE = {
    "gain": "K of the Kalman filter, 0 to 1; 1 at a first frame, which has only its observation",
    "entropy": "of T_Q's distribution over the codes, over that of equal probabilities: 0 to 1",
    "top1": "probability of the chosen code, 0 to 1",
    "innovation": "root mean square of ẑ⁻ − z̃ over the channels; 0 at a first frame",
    "whitened": "the same in units of the codebook's covariance: 1 is as far as two codes are",
    "motion": "mean |ŷ_t − ω(ŷ_{t-1})| of luma, in [-1, 1]; 0 at a first frame",
    "failure": "mean |input − ω(last input)| of luma at a quarter of the size: large where the flow fails; "
    "0 at a first frame",
    "residual": "mean difference of luma between the input and the output degraded again, at a quarter of the size",
    "blur": "σ of the blur that explains the input best, in pixels of the output; equal in all blocks",
    "change": "mean |ŷ − input| of luma",
    "detail_in": "mean size of the fine detail of the input's luma",
    "detail_out": "mean size of the fine detail of the output's luma",
    "contrast": "standard deviation of the output's luma in the block",
    "brightness": "mean luma of the output",
    "size": "side of the face in the input over its side in the output; 1 if not given; equal in all blocks",
}
"""Name of each map, in the order of the channels → its meaning."""

SIGMAS = (0.0, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # of the estimated blur, in pixels of the quarter size
TAPS = 13
LUMA = (0.299, 0.587, 0.114)


def whitening(codes: Tensor) -> Tensor:
    """W (C, C) with |W d|² / C = 1 on average for d a difference of two of the codes (K, C)."""
    codes = codes.detach().float()
    covariance = 2 * torch.cov(codes.T)
    ridge = 1e-3 * covariance.diagonal().mean().clamp_min(1e-12)
    eye = torch.eye(codes.shape[1], device=codes.device)
    lower = torch.linalg.cholesky(covariance + ridge * eye)
    return torch.linalg.solve_triangular(lower, eye, upper=False)


class Step(Protocol):
    """What :class:`keep.archs.keep.KalmanStep` has."""

    output: Tensor
    logits: Tensor
    warped: Tensor | None
    z_prior: Tensor | None


@torch.no_grad()
def clip_evidence(
    lq: Tensor,
    steps: Sequence[Step],
    z_obs: Tensor,
    gains: Tensor,
    flows: Tensor,
    *,
    codes: Tensor,
    before: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """The evidence of n frames in a row.

    Args:
        lq: the input, upsampled, (B, n, 3, S, S) in [-1, 1].
        steps: one for each frame.
        z_obs: z̃ (B, n, C, h, w).
        gains: K (B, n, 1, h, w); not used at first frames.
        flows: of each frame that has a prediction to the one before it, (B, m, 2, S, S) in pixels.
        codes: the codebook (K, C).
        before: the input's frame before these, (B, 1, 3, S, S); None if these are the first.
        sizes: side of the face in the input over S, (B, n); None: 1.

    Returns:
        float32 (B, n, channels of ``EVIDENCE``, S/8, S/8).
    """
    b, n = lq.shape[:2]
    first = [step.z_prior is None for step in steps]
    z_prior = torch.stack([z_obs[:, i] if s.z_prior is None else s.z_prior for i, s in enumerate(steps)], 1)
    gain = torch.stack([torch.ones_like(z_obs[:, i, :1]) if first[i] else gains[:, i] for i in range(n)], 1)
    # Luma before anything is stacked: a third of the memory to move.
    given = luma((lq if before is None else torch.cat([before, lq], dim=1)).flatten(0, 1)).unflatten(0, (b, -1))
    made = [luma(step.output) for step in steps]
    warped = [made[i] if s.warped is None else luma(s.warped) for i, s in enumerate(steps)]
    maps = measure(
        given=given[:, -n:].flatten(0, 1),
        made=torch.stack(made, 1).flatten(0, 1),
        warped=torch.stack(warped, 1).flatten(0, 1),
        logits=torch.stack([s.logits for s in steps], 1).flatten(0, 1),
        z_obs=z_obs.flatten(0, 1),
        z_prior=z_prior.flatten(0, 1),
        gain=gain.flatten(0, 1),
        failure=flow_failure(given, flows, n).flatten(0, 1),
        white=whitening(codes),
        size=lq.new_ones(b * n) if sizes is None else sizes.flatten(),
    )
    return maps.unflatten(0, (b, n))


def measure(
    *,
    given: Tensor,
    made: Tensor,
    warped: Tensor,
    logits: Tensor,
    z_obs: Tensor,
    z_prior: Tensor,
    gain: Tensor,
    failure: Tensor,
    white: Tensor,
    size: Tensor,
) -> Tensor:
    """The evidence of N frames. At a first frame ``z_prior`` is ``z_obs``, ``warped`` is ``made`` and ``gain`` is 1.

    Args:
        given: :func:`luma` of the input, upsampled, (N, 1, S, S).
        made: luma of ŷ (N, 1, S, S).
        warped: luma of ω(ŷ_{t-1}) (N, 1, S, S).
        logits: of T_Q (N, h·w, K).
        z_obs: z̃ (N, C, h, w).
        z_prior: ẑ⁻ (N, C, h, w).
        gain: K (N, 1, h, w).
        failure: of :func:`flow_failure` (N, 1, S/4, S/4).
        white: of :func:`whitening`.
        size: side of the face in the input over S, (N,).

    Returns:
        float32 (N, channels of ``EVIDENCE``, S/8, S/8).
    """
    blocks = made.shape[-1] // BLOCK
    entropy, top1 = _certainty(logits, z_obs.shape[-2:])
    residual, blur = _residual(given, made)
    innovation = (z_prior - z_obs).float()
    white_innovation = torch.einsum("dc,nchw->ndhw", white, innovation)
    maps = {
        "gain": gain.float(),
        "entropy": entropy,
        "top1": top1,
        "innovation": innovation.square().mean(1, keepdim=True).sqrt(),
        "whitened": white_innovation.square().mean(1, keepdim=True).sqrt(),
        "motion": (made - warped).abs_(),
        "failure": failure,
        "residual": residual,
        "blur": blur.expand(-1, 1, blocks, blocks),
        "change": (made - given).abs_(),
        "detail_in": _detail(given),
        "detail_out": _detail(made),
        "contrast": _contrast(made),
        "brightness": made,
        "size": size.float().view(-1, 1, 1, 1).expand(-1, 1, blocks, blocks),
    }
    return torch.cat([to_blocks(maps[name], blocks) for name in EVIDENCE], dim=1)


def luma(frames: Tensor) -> Tensor:
    """RGB (N, 3, H, W) in about [-1, 1] → float32 (N, 1, H, W) in [-1, 1]."""
    r, g, b = frames.float().split(1, dim=1)
    return (LUMA[0] * r).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2]).clamp_(-1, 1)


def to_blocks(maps: Tensor, blocks: int) -> Tensor:
    """Means over blocks: (N, 1, H, W) → (N, 1, blocks, blocks); a coarser map is repeated."""
    if maps.shape[-1] == blocks:
        return maps
    if maps.shape[-1] % blocks == 0:
        return reduce(maps, maps.shape[-1] // blocks)
    return F.adaptive_avg_pool2d(maps, blocks)


def reduce(maps: Tensor, factor: int) -> Tensor:
    """Means over factor×factor pixels: (N, C, H, W) → (N, C, H/factor, W/factor).

    Rows first, by whole lines: on a CPU twice as fast as ``avg_pool2d``.
    """
    rows = maps.unflatten(-2, (-1, factor)).sum(-2)
    return rows.unflatten(-1, (-1, factor)).sum(-1) / factor**2


def flow_failure(given: Tensor, flows: Tensor, n: int) -> Tensor:
    """|given_t − ω(given_{t-1})| at a quarter of the size: where the flow does not find the same thing again.

    A check by the flow back needs the estimator once more, and told the error model hardly more (docs/confidence.md).
    Outside the frame lies its nearest pixel.

    Args:
        given: luma of the input (B, n, 1, S, S), or with the frame before it (B, n + 1, 1, S, S).
        flows: flow of the last m frames to the one before each, (B, m, 2, S, S).
        n: number of frames.

    Returns:
        (B, n, 1, S/4, S/4); 0 at frames without flow.
    """
    b, m = flows.shape[:2]
    small = reduce(given.flatten(0, 1), 4).unflatten(0, (b, -1))
    failure = torch.zeros_like(small[:, -n:])
    if m:
        flow = reduce(flows.flatten(0, 1).float(), 4) / 4
        last = sample(small[:, -m - 1 : -1].flatten(0, 1), flow, "border").unflatten(0, (b, m))
        failure[:, n - m :] = (small[:, -m:] - last).abs()
    return failure


def _certainty(logits: Tensor, grid: torch.Size) -> tuple[Tensor, Tensor]:
    """(N, h·w, K) → entropy over log K, and largest probability, (N, 1, h, w) each."""
    logits = logits.float()
    p = logits.softmax(-1)
    top1 = p.amax(-1)
    normaliser = logits.amax(-1) - top1.log()  # the logarithm of the sum of exponentials
    expected = torch.einsum("nkc,nkc->nk", p, logits)  # no product of all elements in memory
    entropy = (normaliser - expected).clamp_min(0) / math.log(max(logits.shape[-1], 2))
    return entropy.unflatten(1, grid)[:, None], top1.unflatten(1, grid)[:, None]


def _residual(given: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """|↓4 of the input − ↓4 of the blurred output| (N, 1, S/4, S/4), and the σ that makes it smallest (N, 1, 1, 1)."""
    given, made = reduce(given, 4), reduce(made, 4)
    radius = TAPS // 2
    x = torch.arange(-radius, radius + 1, device=made.device, dtype=torch.float32)
    sigmas = torch.tensor(SIGMAS, device=made.device)
    kernels = torch.exp(-0.5 * (x / sigmas.clamp_min(1e-3)[:, None]).square())
    kernels = kernels / kernels.sum(1, keepdim=True)
    edge = min(radius, made.shape[-1] - 1)
    pad = F.pad(F.pad(made, (edge,) * 4, mode="reflect"), (radius - edge,) * 4, mode="replicate")
    rows = F.conv2d(pad, kernels[:, None, None])
    blurred = F.conv2d(rows, kernels[:, None, :, None], groups=len(SIGMAS))  # (N, σ, S/4, S/4)
    difference = (blurred - given).abs()
    best = difference.square().mean((2, 3)).argmin(1)
    chosen = difference[torch.arange(len(best), device=best.device), best][:, None]
    return chosen, 4 * sigmas[best].view(-1, 1, 1, 1)


def _detail(x: Tensor) -> Tensor:
    """|x − its mean over 4×4 pixels|."""
    means = reduce(x, 4).repeat_interleave(4, -1)
    return (x.unflatten(-2, (-1, 4)) - means[..., None, :]).abs_().flatten(-3, -2)


def _contrast(x: Tensor) -> Tensor:
    return (reduce(x.square(), BLOCK) - reduce(x, BLOCK).square()).clamp_min(0).sqrt()
