"""GMFlow (Xu et al. 2022, "GMFlow: Learning optical flow via global matching"), the estimator of the public weights.

One scale, one global match, one propagation, no refinement. Features are at 1/8 of the image.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.archs.blocks import to_map, to_tokens
from keep.config.registry import FLOWS
from keep.utils.errors import UserError
from keep.utils.weight_files import fill, load_network

DIM = 128
LAYERS = 6
STRIDE = 8
SOURCES = (
    "set its option weights to the official file gmflow_sintel-0c07dcb3.pth (github.com/haofeixu/gmflow) or to a KEEP "
    "checkpoint that contains GMFlow, such as KEEP-b76feb75.pth; the flow estimator 'dis' needs no weights"
)


@FLOWS.register()
class GMFlow(nn.Module):
    """GMFlow: two images (N, 3, H, W) in [-1, 1] → flow (N, 2, H, W) in pixels; sides multiples of 16.

    It needs trained weights: from ``weights``, or loaded with a checkpoint of KEEP that contains them.

    Args:
        weights: the official file of GMFlow (gmflow_sintel-0c07dcb3.pth) or a checkpoint of KEEP that contains
            GMFlow, in a public layout or ours. null: the weights come with the checkpoint of KEEP.
        random_weights: allow random weights, for tests of speed and memory.

    Attributes:
        trained: whether weights were loaded, or random ones are allowed.
        files: the weight file that was loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path | None = None, random_weights: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.backbone = Backbone()
        self.transformer = FeatureTransformer()
        self.feature_flow_attn = Propagation()
        self.upsampler = nn.Sequential(
            nn.Conv2d(2 + DIM, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * STRIDE**2, 1)
        )
        self.trained = random_weights
        self.files = () if weights is None else (weights,)
        self.register_load_state_dict_pre_hook(_note_weights)
        if weights is not None:
            if not weights.is_file():
                raise UserError(f"flow estimator GMFlow: there is no file {weights}; {SOURCES}")
            fill(self, gmflow_weights(load_network(weights), weights), weights, "GMFlow")

    def require_weights(self) -> None:
        """Raise UserError if no weights were loaded."""
        if not self.trained:
            raise UserError(f"flow estimator GMFlow has no weights; {SOURCES}")

    @torch.no_grad()
    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """The flow current→previous: sampling ``previous`` at p + flow(p) gives ``current``."""
        self.require_weights()
        h, w = current.shape[-2:]
        if h % 16 or w % 16:
            raise UserError(f"GMFlow: frames are {w}×{h}; both sides must be multiples of 16")
        with torch.autocast(current.device.type, enabled=False):  # a position is a weighted mean of coordinates
            pair = torch.cat([current, previous]).to(self.backbone.conv1.weight.dtype)
            return self._flow(self._features(pair))

    @torch.no_grad()
    def clip(self, frames: Tensor) -> Tensor:
        """The flow of every frame but the first to the one before it. The features of each frame are computed once.

        Args:
            frames: (B, T, 3, H, W) in [-1, 1], T ≥ 2.

        Returns:
            (B, T - 1, 2, H, W), in pixels.
        """
        self.require_weights()
        with torch.autocast(frames.device.type, enabled=False):
            frames = frames.to(self.backbone.conv1.weight.dtype)
            previous = self._features(frames[:, 0])
            flows = []
            for frame in frames[:, 1:].unbind(1):
                current = self._features(frame)
                flows.append(self._flow(torch.cat([current, previous])))
                previous = current
            return torch.stack(flows, dim=1)

    def _features(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 128, H/8, W/8)."""
        return self.backbone(((frames + 1) / 2 - self.mean) / self.std)

    def _flow(self, features: Tensor) -> Tensor:
        """Features of the current frames, then of the previous ones, (2N, 128, h, w) → flow (N, 2, 8h, 8w)."""
        f1, f2 = self.transformer(features).chunk(2)
        return self._upsample(self.feature_flow_attn(f1, match(f1, f2)), f1)

    def _upsample(self, flow: Tensor, f1: Tensor) -> Tensor:
        """Convex combination of the 3×3 coarse neighbours for every fine pixel (Teed & Deng 2020)."""
        n, _, h, w = flow.shape
        weights = self.upsampler(torch.cat([flow, f1], dim=1)).view(n, 1, 9, STRIDE, STRIDE, h, w).softmax(2)
        neighbours = F.unfold(STRIDE * flow, 3, padding=1).view(n, 2, 9, 1, 1, h, w)
        fine = (weights * neighbours).sum(2)  # (n, 2, 8, 8, h, w)
        return fine.permute(0, 1, 4, 2, 5, 3).reshape(n, 2, STRIDE * h, STRIDE * w)


def _note_weights(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    """Called before a state dict is loaded: note whether it contains this estimator's weights."""
    assert isinstance(module, GMFlow)
    module.trained |= f"{prefix}{KEY}" in state


KEY = "feature_flow_attn.q_proj.weight"
"""A name that identifies GMFlow's weights."""
PREFIXES = ("flownet.model.", "flownet.", "module.", "")
"""Prefixes of GMFlow's names in a public KEEP, in ours, in a file written by DataParallel, in the official file."""


def gmflow_weights(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights of GMFlow in a file, in the names of :class:`GMFlow`.

    Raises:
        UserError: the file contains no GMFlow.
    """
    for prefix in PREFIXES:
        if f"{prefix}{KEY}" in state:
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    raise UserError(f"{path} contains no GMFlow: expected the official file or a KEEP checkpoint that contains GMFlow")


def match(f1: Tensor, f2: Tensor) -> Tensor:
    """Expected position in f2 of every position of f1, minus its own: (N, C, h, w) → (N, 2, h, w)."""
    n, _, h, w = f1.shape
    ys, xs = torch.meshgrid(torch.arange(h, device=f1.device), torch.arange(w, device=f1.device), indexing="ij")
    grid = torch.stack([xs, ys]).to(f1.dtype).expand(n, 2, h, w)
    return to_map(F.scaled_dot_product_attention(to_tokens(f1), to_tokens(f2), to_tokens(grid)), h, w) - grid


class Propagation(nn.Module):
    """Propagates the flow by the self-similarity of f1, to reach occluded pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(DIM, DIM)
        self.k_proj = nn.Linear(DIM, DIM)

    def forward(self, f1: Tensor, flow: Tensor) -> Tensor:
        q = self.q_proj(to_tokens(f1))
        k = self.k_proj(q)  # from the query, not from f1: the public weights were trained like this
        return to_map(F.scaled_dot_product_attention(q, k, to_tokens(flow)), *flow.shape[-2:])


class BackboneBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(F.instance_norm(self.conv1(x)))
        y = F.relu(F.instance_norm(self.conv2(y)))
        if hasattr(self, "downsample"):
            x = F.instance_norm(self.downsample(x))
        return F.relu(x + y)


class Backbone(nn.Module):
    """(N, 3, H, W) → (N, 128, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.layer1 = nn.Sequential(BackboneBlock(64, 64, 1), BackboneBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BackboneBlock(64, 96, 2), BackboneBlock(96, 96, 1))
        self.layer3 = nn.Sequential(BackboneBlock(96, DIM, 2), BackboneBlock(DIM, DIM, 1))
        self.conv2 = nn.Conv2d(DIM, DIM, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.instance_norm(self.conv1(x)))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class WindowAttention(nn.Module):
    """Single-head attention within 2×2 windows, normalised, added to the source; optionally with a feed-forward."""

    def __init__(self, feed_forward: bool) -> None:
        super().__init__()
        self.q_proj = nn.Linear(DIM, DIM, bias=False)
        self.k_proj = nn.Linear(DIM, DIM, bias=False)
        self.v_proj = nn.Linear(DIM, DIM, bias=False)
        self.merge = nn.Linear(DIM, DIM, bias=False)
        self.norm1 = nn.LayerNorm(DIM)
        if feed_forward:
            self.mlp = nn.Sequential(
                nn.Linear(2 * DIM, 8 * DIM, bias=False), nn.GELU(), nn.Linear(8 * DIM, DIM, bias=False)
            )
            self.norm2 = nn.LayerNorm(DIM)

    def forward(self, source: Tensor, target: Tensor, shifted: bool) -> Tensor:
        """Both (N, h, w, C); ``shifted`` windows are moved by half a window."""
        _, h, w, _ = source.shape
        shift = (h // 4, w // 4) if shifted else (0, 0)
        mask = shift_mask(h, w, *shift, source.device)[None] if shifted else None
        q, k, v = (
            to_windows(proj(x).roll((-shift[0], -shift[1]), (1, 2)))
            for proj, x in ((self.q_proj, source), (self.k_proj, target), (self.v_proj, target))
        )
        windows = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        message = self.norm1(self.merge(from_windows(windows, h, w).roll(shift, (1, 2))))
        if hasattr(self, "mlp"):
            message = self.norm2(self.mlp(torch.cat([source, message], dim=-1)))
        return source + message


class TransformerLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = WindowAttention(feed_forward=False)
        self.cross_attn_ffn = WindowAttention(feed_forward=True)

    def forward(self, source: Tensor, target: Tensor, shifted: bool) -> Tensor:
        return self.cross_attn_ffn(self.self_attn(source, source, shifted), target, shifted)


class FeatureTransformer(nn.Module):
    """Features of both images, stacked (2N, C, h, w): self-attention, then attention to the other image; same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer() for _ in range(LAYERS))

    def forward(self, features: Tensor) -> Tensor:
        h, w = features.shape[-2:]
        position = sine_position(h // 2, w // 2, features.device).to(features.dtype).tile(2, 2, 1)
        x = features.permute(0, 2, 3, 1) + position
        for i, layer in enumerate(self.layers):
            other = torch.cat(x.chunk(2)[::-1])
            x = layer(x, other, shifted=i % 2 == 1)
        return x.permute(0, 3, 1, 2)


def sine_position(h: int, w: int, device: torch.device) -> Tensor:
    """(h, w, 128): half for y, half for x; sine and cosine interleaved (Carion et al. 2020, DETR)."""
    half = DIM // 2
    frequency = 10000 ** (-2 * (torch.arange(half, device=device) // 2) / half)

    def encode(n: int) -> Tensor:
        angle = torch.arange(1, n + 1, device=device)[:, None] / (n + 1e-6) * 2 * math.pi * frequency
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)

    y, x = encode(h)[:, None].expand(h, w, half), encode(w)[None].expand(h, w, half)
    return torch.cat([y, x], dim=-1)


def to_windows(x: Tensor) -> Tensor:
    """(N, h, w, C) → (N, 4, h/2·w/2, C)."""
    n, h, w, c = x.shape
    return x.view(n, 2, h // 2, 2, w // 2, c).transpose(2, 3).reshape(n, 4, h * w // 4, c)


def from_windows(x: Tensor, h: int, w: int) -> Tensor:
    """(N, 4, h/2·w/2, C) → (N, h, w, C)."""
    n, _, _, c = x.shape
    return x.view(n, 2, 2, h // 2, w // 2, c).transpose(2, 3).reshape(n, h, w, c)


def shift_mask(h: int, w: int, shift_y: int, shift_x: int, device: torch.device | str = "cpu") -> Tensor:
    """(4, L, L): true if two positions of a window were in one region before rolling (Liu et al. 2021, Swin)."""

    def wrapped(n: int, shift: int) -> Tensor:
        return (torch.arange(n, device=device) >= n - shift).int()

    region = 2 * wrapped(h, shift_y)[:, None] + wrapped(w, shift_x)[None]
    region = to_windows(region[None, :, :, None])[0, :, :, 0]
    return region[:, :, None] == region[:, None, :]
