"""Networks of clips other than KEEP: EDVR, BasicVSR, BasicVSR++, and any arch that ``RegressionModel`` trained."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn as nn
from pydantic import Field
from torch import Tensor

from keep.archs.video_blocks import bare_name
from keep.config.registry import ARCHS, BASELINES, Arch
from keep.degradation.resize import upsample
from keep.models.clip_nets import restore_clip, upsampling_before
from keep.utils import weight_files
from keep.utils.errors import UserError
from keep.utils.paths import expand
from keep.utils.ranges import Scale
from keep.utils.validation import checked

State = Mapping[str, Tensor]
Frames = Annotated[int, Field(ge=1, le=10**6)]


@BASELINES.register()
class ClipNetwork:
    """A network of clips from its weight file: whole clips, overlapping parts of them, or windows of one output each.

    Args:
        weights: a file of ``keep.train``, which stores its network; or one of EDVR, BasicVSR or BasicVSR++ with the
            names of BasicSR or mmagic, of any size.
        net: the network, if the file does not store it and its names do not tell.
        params: averaged (``ema``) or ``online`` weights, if the file has both.
        scale: how much smaller the LQ frames are than the output.
        frames: frames restored at once, for memory and latency; null: the whole clip. EDVR takes its own windows.
        overlap: frames at each side of such a part that are restored, but not used.

    Attributes:
        future_frames: frames after a frame that its output depends on; None: all of the clip. For EDVR away from the
            start of the clip; there its windows reach further.
    """

    marker = ""
    """A name that begins one of the weights of the network that a subclass stands for."""

    def __init__(
        self,
        weights: Path,
        net: Arch | None = None,
        params: Literal["ema", "online"] = "ema",
        scale: Scale = 4,
        frames: Frames | None = None,
        overlap: Annotated[int, Field(ge=0, le=1000)] = 2,
    ) -> None:
        if frames is not None and frames <= 2 * overlap:
            raise UserError(f"frames: {frames} must be more than twice the overlap of {overlap}")
        self.net = load(weights, net, params, self.marker).requires_grad_(False)
        self.weights, self.files = weights, (expand(weights),)
        self.upsampling = upsampling_before(self.net, scale)
        self.frames, self.overlap = frames, overlap
        self.future_frames = getattr(self.net, "future_frames", None)
        if self.future_frames is None and frames is not None:
            self.future_frames = frames - 1  # the first frame of a clip sees all of the first part

    def to(self, device: torch.device) -> "ClipNetwork":
        self.net.to(device)
        return self

    def describe(self) -> str:
        parts = "" if self.frames is None else f", {self.frames} frames at once, {self.overlap} overlapping"
        return f"{type(self.net).__name__} {self.weights}{parts}"

    @torch.no_grad()
    def __call__(self, lq: Tensor) -> Tensor:
        """(T, 3, h, w) in [-1, 1] → (T, 3, scale·h, scale·w) in [-1, 1]."""
        clip = upsample(lq, self.upsampling)[None]
        length = len(lq)
        if self.frames is None or length <= self.frames or hasattr(self.net, "window"):
            return restore_clip(self.net, clip)[0].clamp(-1, 1)
        restored = []
        for first, used in parts(length, self.frames, self.overlap):
            part = restore_clip(self.net, clip[:, first : first + self.frames])[0]
            restored.append(part[used.start - first : used.stop - first])
        return torch.cat(restored).clamp(-1, 1)


def parts(length: int, frames: int, overlap: int) -> list[tuple[int, range]]:
    """First frame of each part of ``frames`` frames, and the frames of the clip whose output is taken from it."""
    found, start = [], 0
    while start < length:
        first = min(max(0, start - overlap), length - frames)
        stop = length if first + frames == length else first + frames - overlap
        found.append((first, range(start, stop)))
        start = stop
    return found


@BASELINES.register()
class EDVR(ClipNetwork):
    """EDVR (Wang et al., CVPRW 2019). See :class:`ClipNetwork`.

    Beyond the ends of the clip the window is filled from its other side, as in BasicSR's tests.
    """

    marker = "pcd_align."


@BASELINES.register()
class BasicVSR(ClipNetwork):
    """BasicVSR (Chan et al., CVPR 2021). See :class:`ClipNetwork`."""

    marker = "backward_trunk."


@BASELINES.register()
class BasicVSRPlusPlus(ClipNetwork):
    """BasicVSR++ (Chan et al., CVPR 2022). See :class:`ClipNetwork`."""

    marker = "deform_align."


# --- weights ----------------------------------------------------------------------------------------------------


def load(weights: Path, net: Any, params: Literal["ema", "online"], marker: str = "") -> nn.Module:
    """The network of a file, filled, in evaluation mode. Arguments as in :class:`ClipNetwork`.

    Raises:
        UserError: no such file, or the weights of another network.
    """
    path = expand(weights)
    if not path.is_file():
        raise UserError(f"weights: there is no file {path}")
    content = weight_files.load(path)
    state, _ = weight_files.network_state(content, path, params)
    arch = content.get("arch") if isinstance(content, Mapping) else None
    if not isinstance(arch, Mapping):  # a file of keep.train has our names already
        state = common_state(state)
    if marker and not any(key.startswith(marker) for key in state):
        raise UserError(f"{weights} does not hold this network: nothing in it begins with {marker}")
    if net is None:
        built = build(dict(arch) if isinstance(arch, Mapping) else sizes_of(state, weights), weights)
    else:
        built = net if isinstance(net, nn.Module) else ARCHS.spec(net).build()
    weight_files.fill(built, state, weights)
    return built.eval()


def common_state(state: State) -> dict[str, Tensor]:
    """Weights under our names, if those of BasicSR or mmagic are recognized."""
    names = [bare_name(key) for key in state]
    for arch, markers in MARKERS.items():
        if any(name.startswith(markers) for name in names):
            return ARCHS[arch].from_public(state)  # type: ignore[attr-defined]
    return dict(state)


MARKERS = {
    "EDVR": ("pcd_align.", "pcd_alignment."),
    "BasicVSRPP": ("deform_align.",),
    "BasicVSR": ("backward_trunk.", "backward_resblocks."),
}
"""Arch → beginnings of names that only its weights have: ours, then mmagic's."""


def build(arch: Mapping[str, Any], path: Path) -> nn.Module:
    """The untrained network that a file stores, without the file of its flow network: the weights contain it."""
    arch = {**arch, "spynet": None} if arch.get("spynet") else arch
    # The initial weights must not advance the run's random stream.
    with torch.random.fork_rng(devices=[]), checked(f"{path}: this version cannot build its network"):
        return ARCHS.spec(arch).build()


def sizes_of(state: State, path: Path) -> dict[str, Any]:
    """The network of weights that do not store it, with the sizes of its tensors.

    Raises:
        UserError: none of the three networks, or a part is missing.
    """
    for arch, (marker, *_) in MARKERS.items():
        if any(key.startswith(marker) for key in state):
            return {"type": arch} | SIZES[arch](Shapes(state, path))
    raise UserError(f"{path} does not store its network, and its weights are not EDVR's, BasicVSR's or BasicVSR++'s")


class Shapes:
    """Sizes that the tensors of a file tell."""

    def __init__(self, state: State, path: Path) -> None:
        self.state, self.path = state, path

    def has(self, start: str) -> bool:
        """Whether a name begins so."""
        return any(key.startswith(start) for key in self.state)

    def of(self, key: str) -> torch.Size:
        """Shape of a tensor.

        Raises:
            UserError: it is missing.
        """
        if key not in self.state:
            raise UserError(f"{self.path} holds another network: it lacks {key}")
        return self.state[key].shape

    def blocks(self, start: str) -> int:
        """Number of numbered modules whose names begin so."""
        return len({key[len(start) :].partition(".")[0] for key in self.state if key.startswith(start)})


def edvr_sizes(shapes: Shapes) -> dict[str, Any]:
    """Options of :class:`keep.archs.edvr.EDVR`."""
    width = shapes.of("feature_extraction.0.conv1.weight")[0]
    tsa = shapes.has("fusion.feat_fusion.")
    return {
        "width": width,
        "window": shapes.of("fusion.feat_fusion.weight" if tsa else "fusion.weight")[1] // width,
        "groups": shapes.of("pcd_align.cas_dcnpack.conv_offset.weight")[0] // 27,
        "extract_blocks": shapes.blocks("feature_extraction."),
        "reconstruct_blocks": shapes.blocks("reconstruction."),
        "upsampled": shapes.has("predeblur.stride_conv_hr1."),
        "predeblur": shapes.has("predeblur."),
        "tsa": tsa,
    }


def basicvsr_sizes(shapes: Shapes) -> dict[str, Any]:
    """Options of :class:`keep.archs.basicvsr.BasicVSR`."""
    return {
        "width": shapes.of("backward_trunk.main.0.weight")[0],
        "blocks": shapes.blocks("backward_trunk.main.2."),
    }


def basicvsrpp_sizes(shapes: Shapes) -> dict[str, Any]:
    """Options of :class:`keep.archs.basicvsrpp.BasicVSRPP`."""
    return {
        "width": shapes.of("backbone.backward_1.main.0.weight")[0],
        "blocks": shapes.blocks("backbone.backward_1.main.2."),
        "groups": shapes.of("deform_align.backward_1.conv_offset.6.weight")[0] // 27,
        "enlarge_input": shapes.has("feat_extract.main.0."),
    }


SIZES: dict[str, Callable[[Shapes], dict[str, Any]]] = {
    "EDVR": edvr_sizes,
    "BasicVSR": basicvsr_sizes,
    "BasicVSRPP": basicvsrpp_sizes,
}
