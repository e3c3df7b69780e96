"""Test sets of which no ground truth exists: real low-quality faces, such as FOS and RFV-LQ."""

from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from torch.utils.data import Dataset

from keep.config.registry import DATASETS
from keep.data.base import SourceClip, to_tensor
from keep.utils.errors import UserError
from keep.utils.ranges import Scale


@DATASETS.register()
class LowQualityClips(Dataset[dict[str, Any]]):
    """Whole clips, or single images, that exist in low quality only.

    ``dataset[seed, i]`` is the dict of :class:`keep.data.base.ClipDataset`; nothing in it is random. ``gt`` is no
    truth: it is the clip at the size of the restored frames, in which metrics locate faces and estimate flow. ``lq``
    is the same clip, ``scale`` times smaller, as restorers take it. Only metrics without a reference can be measured.

    Args:
        clips: the low-quality clips, a dataset of whole clips without degradation, e.g. {type: FrameFolders, root:
            FOS-V, size: 512}; its size is that of the restored frames.
        scale: factor by which the frames are reduced (by area) for the restorers, which enlarge them again.

    Raises:
        UserError: the clips are cut or degraded, or their size is no multiple of ``scale``.
    """

    has_truth = False

    def __init__(self, clips: Annotated[Any, DATASETS], scale: Scale = 4) -> None:
        if clips.clip_length is not None or clips.pipeline is not None:
            raise UserError("LowQualityClips: clips must be whole and as they are: no clip_length, no degradation")
        if clips.size % scale:
            raise UserError(f"LowQualityClips: size {clips.size} is no multiple of scale {scale}")
        self.source, self.scale, self.max_frames = clips, scale, clips.max_frames
        most = clips.max_frames or max(clip.frames for clip in clips.clips)
        self.clips = [SourceClip(clip.name, min(clip.frames, most), clip) for clip in clips.clips]

    def files(self, clip: SourceClip) -> list[Path] | None:
        """As :meth:`keep.data.base.ClipDataset.files`."""
        return self.source.files(clip.source)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        item = self.source[key]
        frames = item["gt"].permute(0, 2, 3, 1).numpy()
        side = frames.shape[1] // self.scale
        small = [cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames]
        return {**item, "lq": to_tensor(np.stack(small))}
