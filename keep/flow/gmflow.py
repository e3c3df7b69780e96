"""GMFlow (Xu et al. 2022, "GMFlow: Learning optical flow via global matching"), the estimator of the public weights.

One scale, one global match, one propagation, no refinement. Features are at 1/8 of the image.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.archs.blocks import to_map, to_tokens
from keep.config.registry import FLOWS
from keep.flow.windows import GridCache, Grids
from keep.utils.errors import OptionError, UserError
from keep.utils.weight_files import fill, load_network

DIM = 128
LAYERS = 6
STRIDE = 8
SOURCES = (
    "set its option weights (in a network: model.net.flow.weights) to the official file gmflow_sintel-0c07dcb3.pth "
    "(github.com/haofeixu/gmflow) or to a KEEP checkpoint that contains GMFlow, such as KEEP-b76feb75.pth; the flow "
    "estimator 'dis' needs no weights"
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
        self.grids = GridCache()
        self.trained = random_weights
        self.files = () if weights is None else (weights,)
        self.register_load_state_dict_pre_hook(_note_weights)
        if weights is not None:
            if not weights.is_file():
                raise OptionError(f"{{place}}weights: GMFlow: there is no file {weights}; {SOURCES}")
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
            return self._flow(self._features(torch.cat([current, previous])))

    @torch.no_grad()
    def clip(self, frames: Tensor, at_once: int = 1) -> Tensor:
        """The flow of every frame but the first to the one before it. The features of each frame are computed once.

        Args:
            frames: (B, T, 3, H, W) in [-1, 1], T ≥ 2.
            at_once: frames of every clip in one batch: more is faster on a GPU, but needs more memory.

        Returns:
            (B, T - 1, 2, H, W), in pixels.
        """
        self.require_weights()
        with torch.autocast(frames.device.type, enabled=False):
            last = self._features(frames[:, 0])[:, None]
            flows = []
            for piece in frames[:, 1:].split(at_once, dim=1):
                split = piece.shape[:2]
                seen = torch.cat([last, self._features(piece.flatten(0, 1)).unflatten(0, split)], dim=1)
                pairs = torch.cat([seen[:, 1:].flatten(0, 1), seen[:, :-1].flatten(0, 1)])
                flows.append(self._flow(pairs).unflatten(0, split))
                last = seen[:, -1:]
            return torch.cat(flows, dim=1)

    def features_in(self, dtype: torch.dtype) -> None:
        """Compute features in ``dtype``: all convolutions but the last, and the transformer's products and attention.

        Sums, norms of the transformer, matching and positions stay as they are.
        """
        for module in [*self.backbone.modules(), *self.transformer.modules()]:
            if isinstance(module, nn.Conv2d | nn.Linear) and module is not self.backbone.conv2:
                module.to(dtype)

    def _features(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 128, H/8, W/8)."""
        return self.backbone(((frames + 1) / 2 - self.mean) / self.std)

    def _flow(self, features: Tensor) -> Tensor:
        """Features of the current frames, then of the previous ones, (2N, 128, h, w) → flow (N, 2, 8h, 8w)."""
        grids = self.grids.of(features, self.transformer.dtype)
        f1, f2 = self.transformer(features, grids).unflatten(0, (2, -1))
        return self._upsample(self.feature_flow_attn(f1, match(f1, f2, grids.coordinates)), f1)

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


def match(f1: Tensor, f2: Tensor, coordinates: Tensor) -> Tensor:
    """Expected position in f2 of every position of f1, minus its own: (N, C, h, w) → (N, 2, h, w).

    ``coordinates``: x and y of each position, (2, h, w).
    """
    grid = coordinates.expand(f1.shape[0], *coordinates.shape)  # len() would fix the batch in an exported graph
    return to_map(expectation(to_tokens(f1), to_tokens(f2), to_tokens(grid)), *f1.shape[-2:]) - grid


def expectation(q: Tensor, k: Tensor, values: Tensor) -> Tensor:
    """softmax(q·k / √C) values: (N, L, C), (N, L, C), (N, L, 2) → (N, L, 2).

    The fused kernels, which do not store the L × L scores, take no values of two columns, so zeros are added: up to C
    columns on a CPU, up to 8 on a GPU.
    """
    width = q.shape[-1] if q.device.type == "cpu" else 8
    padded = F.pad(values, (0, width - values.shape[-1]))
    return F.scaled_dot_product_attention(q[:, None], k[:, None], padded[:, None])[:, 0, :, : values.shape[-1]]


class Propagation(nn.Module):
    """Propagates the flow by the self-similarity of f1, to reach occluded pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(DIM, DIM)
        self.k_proj = nn.Linear(DIM, DIM)

    def forward(self, f1: Tensor, flow: Tensor) -> Tensor:
        q = self.q_proj(to_tokens(f1))
        k = self.k_proj(q)  # from the query, not from f1: the public weights were trained like this
        return to_map(expectation(q, k, to_tokens(flow)), *flow.shape[-2:])


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
        x = F.relu(F.instance_norm(self.conv1(x.to(self.conv1.weight.dtype))))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))).to(self.conv2.weight.dtype))


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

    def forward(self, source: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Both (N, 4·L, C), window by window; ``mask`` as in :class:`keep.flow.windows.Windows`.

        Projections and attention run in the dtype of their weights; norms and sums in that of ``source``.
        """
        dtype = self.q_proj.weight.dtype
        own, other = source.to(dtype), target.to(dtype)
        q, k, v = (
            proj(x).unflatten(1, (4, -1))
            for proj, x in ((self.q_proj, own), (self.k_proj, other), (self.v_proj, other))
        )
        windows = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).flatten(1, 2)
        message = self.norm1(self.merge(windows).to(source.dtype))
        if hasattr(self, "mlp"):
            message = self.norm2(self.mlp(torch.cat([own, message.to(dtype)], dim=-1)).to(source.dtype))
        return source + message


class TransformerLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = WindowAttention(feed_forward=False)
        self.cross_attn_ffn = WindowAttention(feed_forward=True)

    def forward(self, source: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        return self.cross_attn_ffn(self.self_attn(source, source, mask), target, mask)


class FeatureTransformer(nn.Module):
    """Features of both images, stacked (2N, C, h, w): self-attention, then attention to the other image; same shape.

    The windows of every second layer are shifted. Tokens stay in the order of the windows: all but attention acts on
    single tokens, so one change of order a layer replaces the rolls of Swin (Liu et al. 2021).
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer() for _ in range(LAYERS))

    @property
    def dtype(self) -> torch.dtype:
        """What attention computes in."""
        return self.layers[0].self_attn.q_proj.weight.dtype  # type: ignore[union-attr, return-value]

    def forward(self, features: Tensor, grids: Grids) -> Tensor:
        x = to_tokens(features + grids.position)
        for i, layer in enumerate(self.layers):
            x = x[:, grids.moves[i % 2] if i else grids.windows[0].order]
            other = x.unflatten(0, (2, -1)).flip(0).flatten(0, 1)
            x = layer(x, other, grids.windows[i % 2].mask)
        return to_map(x[:, grids.inverse], *features.shape[-2:])
