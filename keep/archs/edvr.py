"""EDVR (Wang et al., CVPRW 2019, arXiv 1905.02716): a window of frames, aligned by deformable convolution and fused.

Names of modules are those of BasicSR's ``EDVR``, so its files load.
"""

from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from keep.archs.video_blocks import (
    DeformableConv,
    ResidualBlock,
    Tail,
    check_clip,
    common_names,
    conv,
    lrelu,
    pad_to,
)  # fmt: skip
from keep.config.registry import ARCHS
from keep.utils.errors import UserError
from keep.utils.ranges import Depth, Width

Pyramid = list[Tensor]
"""Features at full, half and quarter resolution."""


def double(x: Tensor) -> Tensor:
    """Twice as large, bilinearly."""
    return F.interpolate(x, scale_factor=2, mode="bilinear")


class OffsetConv(DeformableConv):
    """Modulated deformable convolution whose offsets come from other features."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__(width, width, conv(width, 27 * groups), groups)

    def forward(self, x: Tensor, motion: Tensor) -> Tensor:
        """Features to sample and features of the motion, (N, C, h, w) each → (N, C, h, w)."""
        y, x_offset, logits = self.conv_offset(motion).chunk(3, 1)
        return self.sampled(x, torch.cat([y, x_offset], 1), logits.sigmoid())


class PCDAlignment(nn.Module):
    """Pyramid, cascading and deformable alignment: a frame's features to those of the reference."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        levels, upper = ("l3", "l2", "l1"), ("l2", "l1")
        self.offset_conv1 = nn.ModuleDict({level: conv(2 * width, width) for level in levels})
        self.offset_conv2 = nn.ModuleDict({v: conv(width if v == "l3" else 2 * width, width) for v in levels})
        self.offset_conv3 = nn.ModuleDict({level: conv(width, width) for level in upper})
        self.dcn_pack = nn.ModuleDict({level: OffsetConv(width, groups) for level in levels})
        self.feat_conv = nn.ModuleDict({level: conv(2 * width, width) for level in upper})
        self.cas_offset_conv1, self.cas_offset_conv2 = conv(2 * width, width), conv(width, width)
        self.cas_dcnpack = OffsetConv(width, groups)

    def forward(self, frame: Pyramid, reference: Pyramid) -> Tensor:
        """Aligned features (N, C, h, w) of full resolution."""
        coarser_motion = coarser = torch.empty(0)
        for level, x, ref in zip(("l3", "l2", "l1"), reversed(frame), reversed(reference), strict=True):
            motion = lrelu(self.offset_conv1[level](torch.cat([x, ref], 1)))
            if level == "l3":
                motion = lrelu(self.offset_conv2[level](motion))
            else:
                motion = lrelu(self.offset_conv2[level](torch.cat([motion, 2 * double(coarser_motion)], 1)))
                motion = lrelu(self.offset_conv3[level](motion))
            aligned = self.dcn_pack[level](x, motion)
            if level != "l3":
                aligned = self.feat_conv[level](torch.cat([aligned, double(coarser)], 1))
            coarser_motion, coarser = motion, lrelu(aligned) if level != "l1" else aligned
        motion = lrelu(self.cas_offset_conv1(torch.cat([coarser, reference[0]], 1)))
        return lrelu(self.cas_dcnpack(coarser, lrelu(self.cas_offset_conv2(motion))))


class TSAFusion(nn.Module):
    """Temporal and spatial attention: fuses the aligned features of a window."""

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.temporal_attn1, self.temporal_attn2 = conv(width, width), conv(width, width)
        self.feat_fusion = conv(window * width, width, 1)
        self.spatial_attn1, self.spatial_attn2 = conv(window * width, width, 1), conv(2 * width, width, 1)
        self.spatial_attn3, self.spatial_attn4 = conv(width, width), conv(width, width, 1)
        self.spatial_attn5 = conv(width, width)
        self.spatial_attn_l1, self.spatial_attn_l2 = conv(width, width, 1), conv(2 * width, width)
        self.spatial_attn_l3 = conv(width, width)
        self.spatial_attn_add1, self.spatial_attn_add2 = conv(width, width, 1), conv(width, width, 1)

    def forward(self, aligned: Tensor) -> Tensor:
        """Aligned features (B, T, C, h, w) → (B, C, h, w)."""
        b, t = aligned.shape[:2]
        reference = self.temporal_attn1(aligned[:, t // 2])
        embedded = self.temporal_attn2(aligned.flatten(0, 1)).unflatten(0, (b, t))
        similarity = (embedded * reference[:, None]).sum(2, keepdim=True)
        weighted = (aligned * similarity.sigmoid()).flatten(1, 2)
        fused = lrelu(self.feat_fusion(weighted))

        attention = lrelu(self.spatial_attn2(halved(lrelu(self.spatial_attn1(weighted)))))
        coarse = lrelu(self.spatial_attn_l2(halved(lrelu(self.spatial_attn_l1(attention)))))
        coarse = double(lrelu(self.spatial_attn_l3(coarse)))
        attention = lrelu(self.spatial_attn4(lrelu(self.spatial_attn3(attention)) + coarse))
        attention = self.spatial_attn5(double(attention))
        added = self.spatial_attn_add2(lrelu(self.spatial_attn_add1(attention)))
        return fused * attention.sigmoid() * 2 + added


def halved(x: Tensor) -> Tensor:
    """Maximum and mean of 3×3 places, at half the resolution: (N, C, h, w) → (N, 2C, h/2, w/2)."""
    return torch.cat([F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1)], 1)


class Predeblur(nn.Module):
    """Features of frames that are blurred, or of full size: a small pyramid in front of the network."""

    def __init__(self, width: int, upsampled: bool) -> None:
        super().__init__()
        self.conv_first = conv(3, width)
        self.upsampled = upsampled
        if upsampled:
            self.stride_conv_hr1, self.stride_conv_hr2 = conv(width, width, stride=2), conv(width, width, stride=2)
        self.stride_conv_l2, self.stride_conv_l3 = conv(width, width, stride=2), conv(width, width, stride=2)
        self.resblock_l3, self.resblock_l2_1, self.resblock_l2_2 = (ResidualBlock(width) for _ in range(3))
        self.resblock_l1 = nn.ModuleList(ResidualBlock(width) for _ in range(5))

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 3, h, w) → (N, C, h, w), of a quarter of the size for upsampled frames."""
        x = lrelu(self.conv_first(frames))
        if self.upsampled:
            x = lrelu(self.stride_conv_hr2(lrelu(self.stride_conv_hr1(x))))
        half = lrelu(self.stride_conv_l2(x))
        quarter = self.resblock_l3(lrelu(self.stride_conv_l3(half)))
        half = self.resblock_l2_2(self.resblock_l2_1(half) + double(quarter))
        for block in self.resblock_l1[:2]:
            x = block(x)
        x = x + double(half)
        for block in self.resblock_l1[2:]:
            x = block(x)
        return x


@ARCHS.register()
class EDVR(Tail):
    """EDVR on a window of frames; restores the middle one. The defaults are EDVR-M: 3.30 M parameters.

    EDVR-L: ``width: 128, reconstruct_blocks: 40``, 20.6 M.

    Args:
        width: channels of the features.
        window: number of frames T.
        groups: deformable groups; they divide ``width``.
        extract_blocks: residual blocks on each frame.
        reconstruct_blocks: residual blocks after the fusion.
        upsampled: the input has the size of the output, and is reduced by the first layers; needs ``predeblur``.
        predeblur: a small pyramid in front, for blurred frames.
        tsa: fuse by temporal and spatial attention; false: by a 1×1 convolution.

    Attributes:
        scale: side of the output / side of the input.
        future_frames: frames after a frame that its restoration needs.
    """

    def __init__(
        self,
        width: Width = 64,
        window: Annotated[int, Field(ge=1, le=31)] = 5,
        groups: Depth = 8,
        extract_blocks: Depth = 5,
        reconstruct_blocks: Depth = 10,
        upsampled: bool = False,
        predeblur: bool = False,
        tsa: bool = True,
    ) -> None:
        super().__init__()
        if window % 2 == 0:
            raise UserError(f"window: {window} must be odd: the middle frame is restored")
        if upsampled and not predeblur:
            raise UserError("upsampled: true needs predeblur: true")
        self.window, self.future_frames, self.scale = window, window // 2, 1 if upsampled else 4
        if predeblur:
            self.predeblur, self.conv_1x1 = Predeblur(width, upsampled), conv(width, width, 1)
        else:
            self.conv_first = conv(3, width)
        self.feature_extraction = nn.Sequential(*(ResidualBlock(width) for _ in range(extract_blocks)))
        self.conv_l2_1, self.conv_l2_2 = conv(width, width, stride=2), conv(width, width)
        self.conv_l3_1, self.conv_l3_2 = conv(width, width, stride=2), conv(width, width)
        self.pcd_align = PCDAlignment(width, groups)
        self.fusion = TSAFusion(width, window) if tsa else conv(window * width, width, 1)
        self.reconstruction = nn.Sequential(*(ResidualBlock(width) for _ in range(reconstruct_blocks)))
        self._build_tail(width)

    def forward(self, lq: Tensor) -> Tensor:
        """A window (B, T, 3, h, w) in [-1, 1] → its middle frame (B, 3, ``scale``·h, ``scale``·w), not clamped.

        Sides that are no multiples of 4 (16 for upsampled frames) are padded inside.

        Raises:
            UserError: not ``window`` frames.
        """
        check_clip("EDVR", lq, self.window)
        b, t, _, height, width = lq.shape
        frames = pad_to((lq.flatten(0, 1) + 1) / 2, 4 if self.scale == 4 else 16)
        pyramid = [level.unflatten(0, (b, t)) for level in self._pyramid(frames)]
        reference = [level[:, t // 2] for level in pyramid]
        aligned = torch.stack([self.pcd_align([level[:, i] for level in pyramid], reference) for i in range(t)], 1)
        x = self.fusion(aligned) if isinstance(self.fusion, TSAFusion) else self.fusion(aligned.flatten(1, 2))
        middle = frames.unflatten(0, (b, t))[:, t // 2]
        base = F.interpolate(middle, scale_factor=4, mode="bilinear") if self.scale == 4 else middle
        out = (self.enlarge(self.reconstruction(x)) + base) * 2 - 1
        return out[..., : self.scale * height, : self.scale * width]

    def _pyramid(self, frames: Tensor) -> Pyramid:
        """(N, 3, h, w) in [0, 1] → features of three resolutions."""
        x = self.conv_1x1(self.predeblur(frames)) if hasattr(self, "predeblur") else lrelu(self.conv_first(frames))
        full = self.feature_extraction(x)
        half = lrelu(self.conv_l2_2(lrelu(self.conv_l2_1(full))))
        return [full, half, lrelu(self.conv_l3_2(lrelu(self.conv_l3_1(half))))]

    @staticmethod
    def from_public(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The names of BasicSR or mmagic → ours."""
        return common_names(state, {
            "pcd_alignment.": "pcd_align.",
            "feat_l2_conv1.": "conv_l2_1.",
            "feat_l2_conv2.": "conv_l2_2.",
            "feat_l3_conv1.": "conv_l3_1.",
            "feat_l3_conv2.": "conv_l3_2.",
        })  # fmt: skip
