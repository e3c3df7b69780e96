"""BasicVSR++ (Chan et al., CVPR 2022, arXiv 2104.13371): second-order propagation with deformable alignment.

Names of modules are those of BasicSR's ``BasicVSRPlusPlus``, so its files load.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keep.archs.basicvsr import clip_flows, renamed_with_flow
from keep.archs.video_blocks import SLOPE, DeformableConv, ResidualBlocks, Tail, check_clip, conv, pad_to
from keep.config.registry import ARCHS
from keep.flow.spynet import SpyNet
from keep.flow.warp import warp
from keep.utils.errors import UserError
from keep.utils.ranges import Depth, Factor, Width

BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")


class FlowGuidedAlignment(DeformableConv):
    """Aligns the features of the two frames before, by flow plus a bounded learned offset, eq. (4) to (6).

    Args:
        width: channels of the features of one frame.
        groups: deformable groups.
        max_residue: largest learned offset, in pixels of the features.
    """

    def __init__(self, width: int, groups: int, max_residue: float) -> None:
        layers: list[nn.Module] = []
        for inputs in (3 * width + 4, width, width):
            layers += [conv(inputs, width), nn.LeakyReLU(SLOPE)]
        super().__init__(2 * width, width, nn.Sequential(*layers, conv(width, 27 * groups)), groups)
        self.max_residue = max_residue

    def forward(self, x: Tensor, seen: Tensor, flow_1: Tensor, flow_2: Tensor) -> Tensor:
        """Features of both frames (N, 2C, h, w), the warped and current ones (N, 3C, h, w), flows → (N, C, h, w)."""
        flows = [flow_1.to(seen.dtype), flow_2.to(seen.dtype)]
        y, x_offset, logits = self.conv_offset(torch.cat([seen, *flows], 1)).float().chunk(3, 1)
        residue = self.max_residue * torch.tanh(torch.cat([y, x_offset], 1))
        # Half of the groups sample the first frame, the others the second; offsets are (y, x), flow is (x, y).
        guide = [flow.flip(1).repeat(1, residue.shape[1] // 4, 1, 1) for flow in (flow_1, flow_2)]
        return self.sampled(x, residue + torch.cat(guide, 1), logits.sigmoid())


@ARCHS.register()
class BasicVSRPP(Tail):
    """BasicVSR++ on whole clips. The defaults are the published sizes: 7.32 M parameters with SPyNet's 1.44 M.

    Args:
        width: channels of the features.
        blocks: residual blocks of each of the four branches.
        groups: deformable groups; an even number that divides 2 · ``width``.
        max_residue: largest learned offset of the alignment, in pixels of the features.
        enlarge_input: true: the output is four times as large as the input. False: it has the input's size, which the
            first layers reduce to a quarter, as for denoising and deblurring; give upsampled frames.
        spynet: weights of the flow network, a file with BasicSR's names; it trains with the rest. Null: random.

    Attributes:
        scale: side of the output / side of the input.
        files: the weight files that were read.
    """

    future_frames = None
    """Frames after a frame that its restoration needs: all of the clip."""

    def __init__(
        self,
        width: Width = 64,
        blocks: Depth = 7,
        groups: Depth = 16,
        max_residue: Factor = 10.0,
        enlarge_input: bool = True,
        spynet: Path | None = None,
    ) -> None:
        super().__init__()
        if groups % 2:
            raise UserError(f"groups: {groups} must be even: half of the groups sample each of the two frames")
        self.width, self.scale = width, 4 if enlarge_input else 1
        self.spynet = SpyNet(spynet)
        body = ResidualBlocks(3 if enlarge_input else width, width, 5)
        self.feat_extract = body if enlarge_input else nn.Sequential(
            conv(3, width, stride=2), nn.LeakyReLU(SLOPE), conv(width, width, stride=2), nn.LeakyReLU(SLOPE), body
        )  # fmt: skip
        self.deform_align = nn.ModuleDict({b: FlowGuidedAlignment(width, groups, max_residue) for b in BRANCHES})
        self.backbone = nn.ModuleDict(
            {branch: ResidualBlocks((2 + i) * width, width, blocks) for i, branch in enumerate(BRANCHES)}
        )
        self.reconstruction = ResidualBlocks(5 * width, width, 5)
        self._build_tail(width)
        self.files = self.spynet.files

    def forward(self, lq: Tensor) -> Tensor:
        """A clip (B, T, 3, h, w) in [-1, 1] → (B, T, 3, ``scale``·h, ``scale``·w), in about [-1, 1], not clamped.

        Raises:
            UserError: no clip.
        """
        check_clip("BasicVSRPP", lq)
        b, t, _, height, width = lq.shape
        frames = (lq.flatten(0, 1) + 1) / 2
        if self.scale == 1:
            frames = pad_to(frames, 4)
        small = frames if self.scale == 4 else F.interpolate(frames, scale_factor=0.25, mode="bicubic")
        to_next, to_previous = clip_flows(self.spynet, small.unflatten(0, (b, t)) * 2 - 1)
        features = [list(self.feat_extract(frames).unflatten(0, (b, t)).unbind(1))]
        for branch in BRANCHES:
            backward = branch.startswith("backward")
            features.append(self._propagate(branch, features, to_next if backward else to_previous))
        x = torch.cat([torch.stack(f, 1).flatten(0, 1) for f in features], 1)
        base = F.interpolate(frames, scale_factor=4, mode="bilinear") if self.scale == 4 else frames
        out = (self.enlarge(self.reconstruction(x)) + base) * 2 - 1
        return out.unflatten(0, (b, t))[..., : self.scale * height, : self.scale * width]

    def _propagate(self, branch: str, features: list[list[Tensor]], flows: Tensor) -> list[Tensor]:
        """Features of one more branch, for all frames in their order.

        Args:
            branch: one of ``BRANCHES``.
            features: of the frames alone, and of each branch before this one: for each frame a tensor (B, C, h, w).
            flows: (B, T - 1, 2, h, w), between frames i and i + 1.
        """
        backward = branch.startswith("backward")
        length = len(features[0])
        zero = torch.zeros_like(features[0][0])
        found: list[Tensor] = []
        order = range(length - 1, -1, -1) if backward else range(length)
        for i, t in enumerate(order):
            current = features[0][t]
            aligned = zero
            if i > 0:
                aligned = self._align(branch, current, found, flows, t, backward)
            seen = [current, *(other[t] for other in features[1:]), aligned]
            found.append(aligned + self.backbone[branch](torch.cat(seen, 1)))
        return found[::-1] if backward else found

    def _align(
        self, branch: str, current: Tensor, found: list[Tensor], flows: Tensor, t: int, backward: bool
    ) -> Tensor:
        """The features of the last two frames of ``found``, aligned to frame ``t``."""
        step = 1 if backward else -1
        flow_1 = flows[:, t if backward else t - 1]
        first = found[-1]
        warped_1 = warp(first, flow_1)
        second, flow_2, warped_2 = torch.zeros_like(first), torch.zeros_like(flow_1), torch.zeros_like(first)
        if len(found) > 1:
            second = found[-2]
            flow_2 = flow_1 + warp(flows[:, (t if backward else t - 1) + step], flow_1)
            warped_2 = warp(second, flow_2)
        seen = torch.cat([warped_1, current, warped_2], 1)
        return self.deform_align[branch](torch.cat([first, second], 1), seen, flow_1, flow_2)

    @staticmethod
    def from_public(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The names of BasicSR or mmagic → ours."""
        return renamed_with_flow(state, {})
