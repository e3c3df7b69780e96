"""BasicVSR (Chan et al., CVPR 2021, arXiv 2012.02181): features carried through the clip in both directions.

Names of modules are those of BasicSR's ``BasicVSR``, so its files load.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from keep.archs.video_blocks import ResidualBlocks, Tail, check_clip, common_names, conv, lrelu
from keep.config.registry import ARCHS
from keep.flow import spynet
from keep.flow.spynet import SpyNet
from keep.flow.warp import warp
from keep.utils.ranges import Depth, Width


@ARCHS.register()
class BasicVSR(Tail):
    """BasicVSR ×4 on whole clips. The defaults are the published sizes: 6.29 M parameters with SPyNet's 1.44 M.

    Args:
        width: channels of the features.
        blocks: residual blocks of each direction.
        spynet: weights of the flow network, a file with BasicSR's names; it trains with the rest. Null: random.

    Attributes:
        files: the weight files that were read.
    """

    scale = 4
    """Side of the output / side of the input."""
    future_frames = None
    """Frames after a frame that its restoration needs: all of the clip."""

    def __init__(self, width: Width = 64, blocks: Depth = 30, spynet: Path | None = None) -> None:
        super().__init__()
        self.width = width
        self.spynet = SpyNet(spynet)
        self.backward_trunk = ResidualBlocks(width + 3, width, blocks)
        self.forward_trunk = ResidualBlocks(width + 3, width, blocks)
        self.fusion = conv(2 * width, width, 1)
        self._build_tail(width)
        self.files = self.spynet.files

    def forward(self, lq: Tensor) -> Tensor:
        """A clip (B, T, 3, h, w) in [-1, 1] → (B, T, 3, 4h, 4w), in about [-1, 1], not clamped.

        Raises:
            UserError: no clip.
        """
        check_clip("BasicVSR", lq)
        frames = (lq + 1) / 2
        length = lq.shape[1]
        to_next, to_previous = clip_flows(self.spynet, lq)
        later = self._carry(frames, to_next, range(length - 1, -1, -1), self.backward_trunk)
        earlier = self._carry(frames, to_previous, range(length), self.forward_trunk)
        restored = []
        for t in range(length):
            x = lrelu(self.fusion(torch.cat([later[t], earlier[t]], 1)))
            base = F.interpolate(frames[:, t], scale_factor=4, mode="bilinear")
            restored.append(self.enlarge(x) + base)
        return torch.stack(restored, 1) * 2 - 1

    def _carry(self, frames: Tensor, flows: Tensor, order: range, trunk: ResidualBlocks) -> dict[int, Tensor]:
        """Features of all frames, each from the one before it in ``order``; ``flows[:, i]``: between i and i + 1."""
        b, _, _, h, w = frames.shape
        x = frames.new_zeros(b, self.width, h, w)
        found: dict[int, Tensor] = {}
        for t in order:
            if found:
                x = warp(x, flows[:, t if order.step < 0 else t - 1])
            x = found[t] = trunk(torch.cat([frames[:, t], x], 1))
        return found

    @staticmethod
    def from_public(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The names of BasicSR or mmagic → ours."""
        return renamed_with_flow(state, {
            "backward_resblocks.": "backward_trunk.",
            "forward_resblocks.": "forward_trunk.",
        })  # fmt: skip


def clip_flows(net: SpyNet, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Flow of each frame to the next, and of each to the previous: (B, T, 3, h, w) → (B, T - 1, 2, h, w), twice."""
    b, t, _, h, w = clip.shape
    if t == 1:
        none = clip.new_zeros(b, 0, 2, h, w, dtype=torch.float32)
        return none, none
    first, second = clip[:, :-1].flatten(0, 1), clip[:, 1:].flatten(0, 1)
    return net(first, second).unflatten(0, (b, t - 1)), net(second, first).unflatten(0, (b, t - 1))


def renamed_with_flow(state: Mapping[str, Tensor], renamed: Mapping[str, str]) -> dict[str, Tensor]:
    """:func:`keep.archs.video_blocks.common_names`, and the names of mmagic's SPyNet inside the network."""
    named = common_names(state, renamed)
    flow = {k.removeprefix("spynet."): v for k, v in named.items() if k.startswith("spynet.")}
    others = {k: v for k, v in named.items() if not k.startswith("spynet.")}
    return others | {f"spynet.{k}": v for k, v in spynet.from_public(flow).items()}
