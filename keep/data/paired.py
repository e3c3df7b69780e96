"""Clips whose low-quality twins are on disk already: those of ``keep-data splits``, or anybody's."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from keep.config.registry import DATASETS
from keep.data.clips import Clip
from keep.data.images import IMAGE_SUFFIXES, by_number, read_images
from keep.data.video_io import VIDEO_SUFFIXES, read_video
from keep.utils.errors import UserError


@DATASETS.register()
class PairedClips(Dataset[dict[str, Any]]):
    """Whole clips, each with a low-quality twin made beforehand.

    ``dataset[seed, i]`` is the dict of :class:`keep.data.clips.ClipDataset`; nothing in it is random. ``lq`` is
    (T, 3, h, w) as it lies on disk, and ``degradation`` what the twins' manifest.json says of the clip, where there
    is one.

    Args:
        gt: the ground truth, a dataset of whole clips without degradation, e.g. {type: VideoClips, root: GT}.
        lq: folder that holds for every clip a folder of frames, CLIP/00000.png …, or a video, CLIP.mp4, frame for
            frame; as ``keep-data splits`` writes it.

    Raises:
        UserError: a twin is missing; later, one that has fewer or more frames, or whose size is no whole fraction.
    """

    def __init__(self, gt: Annotated[Any, DATASETS], lq: str) -> None:
        if gt.clip_length is not None or gt.pipeline is not None:
            raise UserError("PairedClips: gt must give whole clips as they are: no clip_length, no degradation")
        self.gt, self.lq = gt, Path(lq).expanduser()
        if not self.lq.is_dir():
            raise UserError(f"{self.lq}: no such folder of low-quality clips")
        sources = {clip.name: self._files(clip.name) for clip in gt.clips}
        missing = [name for name, files in sources.items() if not files]
        if missing:
            raise UserError(f"{self.lq}: no low-quality twin of {len(missing)} clips: {', '.join(missing[:10])}")
        most = gt.max_frames or max(clip.frames for clip in gt.clips)
        self.clips = [Clip(clip.name, min(clip.frames, most), sources[clip.name]) for clip in gt.clips]
        manifest = self.lq / "manifest.json"
        self._manifest = json.loads(manifest.read_text(encoding="utf-8"))["clips"] if manifest.is_file() else {}

    def _files(self, name: str) -> tuple[Path, ...]:
        """The twin's video, or its frames in order; nothing where there is none."""
        for suffix in sorted(VIDEO_SUFFIXES):
            if (path := self.lq / f"{name}{suffix}").is_file():
                return (path,)
        folder = self.lq / name
        if not folder.is_dir():
            return ()
        names = [p.name for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
        return tuple(folder / n for n in sorted(names, key=by_number))

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        item = self.gt[key]
        clip = self.clips[key[1]]
        files: tuple[Path, ...] = clip.source
        twin = read_video(files[0]) if files[0].suffix.lower() in VIDEO_SUFFIXES else read_images(files)
        if self.gt.max_frames is not None:
            twin = twin[: self.gt.max_frames]
        if len(twin) != clip.frames:
            raise UserError(f"{self.lq}: clip {clip.name} has {len(twin)} frames, its ground truth {clip.frames}")
        size, small = item["gt"].shape[-2:], twin.shape[1:3]
        if size[0] % small[0] or size[1] % small[1] or size[0] // small[0] != size[1] // small[1]:
            raise UserError(
                f"{self.lq}: clip {clip.name} is {small[1]}x{small[0]}, no whole fraction of its ground truth's "
                f"{size[1]}x{size[0]}; give gt the size that the twins were made for"
            )
        lq = torch.from_numpy(np.ascontiguousarray(twin.transpose(0, 3, 1, 2)))
        drawn = self._manifest.get(clip.name, {}).get("degradation", [])
        return {**item, "lq": lq, "degradation": json.dumps(drawn)}
