"""Parts that EDVR, BasicVSR and BasicVSR++ share. Names of modules are those of BasicSR, so its files load."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keep.utils.errors import UserError

SLOPE = 0.1
"""Of all LeakyReLUs in these networks."""


def lrelu(x: Tensor) -> Tensor:
    """LeakyReLU with the slope of these networks."""
    return F.leaky_relu(x, SLOPE)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, divided by ``stride``."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))), without normalisation. Starts near the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(width, width), conv(width, width)
        for layer in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(layer.weight)
            layer.weight.data *= 0.1
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class ResidualBlocks(nn.Module):
    """A convolution to ``width`` channels, LeakyReLU, and ``blocks`` residual blocks."""

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.main = nn.Sequential(conv(inputs, width), nn.LeakyReLU(SLOPE), body)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class Tail(nn.Module):
    """Base of these networks: the layers that turn features into frames four times as large."""

    def _build_tail(self, width: int) -> None:
        self.upconv1, self.upconv2 = conv(width, width * 4), conv(width, 64 * 4)
        self.conv_hr, self.conv_last = conv(64, 64), conv(64, 3)

    def enlarge(self, x: Tensor) -> Tensor:
        """Features (N, width, h, w) → (N, 3, 4h, 4w), to be added to the enlarged frame."""
        x = lrelu(F.pixel_shuffle(self.upconv1(x), 2))
        x = lrelu(F.pixel_shuffle(self.upconv2(x), 2))
        return self.conv_last(lrelu(self.conv_hr(x)))


class DeformableConv(nn.Module):
    """Modulated deformable convolution (Zhu et al., CVPR 2019), 3×3, by torchvision; in float32.

    Args:
        inputs: channels of the features that are sampled.
        outputs: channels of the result.
        offsets: network that gives 27 · ``groups`` channels: for each of the nine places offsets (y, x), then logits
            of the modulation. Its last layer starts at zero: no offsets, modulation ½.
        groups: deformable groups.
    """

    def __init__(self, inputs: int, outputs: int, offsets: nn.Conv2d | nn.Sequential, groups: int) -> None:
        super().__init__()
        if inputs % groups:
            raise UserError(f"{inputs} channels cannot be split into {groups} deformable groups")
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        bound = 1 / math.sqrt(inputs * 9)
        nn.init.uniform_(self.weight, -bound, bound)
        self.conv_offset = offsets
        last = offsets[-1] if isinstance(offsets, nn.Sequential) else offsets
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def sampled(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """Features (N, C, h, w), offsets (N, 18g, h, w) in pixels, modulation (N, 9g, h, w) → (N, C', h, w)."""
        from torchvision.ops import deform_conv2d  # torchvision is slow to import, and KEEP does not need it

        with torch.autocast(x.device.type, enabled=False):  # torchvision's kernels have no bfloat16
            parts = (t.float() for t in (x, offset, self.weight, self.bias))
            x32, offset32, weight, bias = parts
            return deform_conv2d(x32, offset32, weight, bias, padding=(1, 1), mask=mask.float()).to(x.dtype)


def pad_to(frames: Tensor, multiple: int) -> Tensor:
    """(N, C, h, w) with sides that are multiples of ``multiple``: the last row and column repeated."""
    bottom, right = (-side % multiple for side in frames.shape[-2:])
    return F.pad(frames, (0, right, 0, bottom), mode="replicate") if bottom or right else frames


def check_clip(name: str, lq: Tensor, frames: int | None = None) -> None:
    """Raises UserError unless ``lq`` is a clip (B, T, 3, h, w), of exactly ``frames`` frames if that is given."""
    if lq.dim() != 5 or lq.shape[2] != 3 or lq.shape[1] < 1:
        raise UserError(f"{name} restores clips (B, T, 3, h, w); got {tuple(lq.shape)}")
    if frames is not None and lq.shape[1] != frames:
        raise UserError(f"{name} restores the middle one of {frames} frames; got {lq.shape[1]}")


def bare_name(key: str) -> str:
    """A weight's name without what DataParallel and mmagic put before it."""
    return key.removeprefix("module.").removeprefix("generator_ema.").removeprefix("generator.")


def common_names(state: Mapping[str, Tensor], renamed: Mapping[str, str]) -> dict[str, Tensor]:
    """Names of mmagic's generators → BasicSR's, which are ours.

    mmagic puts ``generator.`` before each name and ``.conv`` inside its convolutions with activation, and names the
    convolutions before pixel shuffles after what they are for.

    Args:
        state: weights with either package's names.
        renamed: mmagic's names of further parts → ours.
    """
    renamed = {"upsample1.upsample_conv.": "upconv1.", "upsample2.upsample_conv.": "upconv2.", **renamed}
    found = {}
    for key, value in state.items():
        key = bare_name(key)
        if key.rpartition(".")[2] in ("mean", "std", "step_counter"):
            continue
        if not key.startswith("spynet."):
            key = key.replace(".conv.", ".")
        for theirs, ours in renamed.items():
            key = ours + key.removeprefix(theirs) if key.startswith(theirs) else key
        found[key] = value
    return found
