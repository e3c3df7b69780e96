"""Clips with low-quality twins on disk, made by ``keep-data splits`` or by others."""

import json
from pathlib import Path
from typing import Annotated, Any

from torch.utils.data import Dataset

from keep.config.registry import DATASETS
from keep.data.base import SourceClip, to_tensor
from keep.data.images import IMAGE_SUFFIXES, by_number, read_images
from keep.data.video_io import VIDEO_SUFFIXES, read_video
from keep.utils.errors import UserError
from keep.utils.paths import expand


@DATASETS.register()
class PairedClips(Dataset[dict[str, Any]]):
    """Whole clips, each with a low-quality twin on disk.

    ``dataset[seed, i]`` is the dict of :class:`keep.data.base.ClipDataset`; nothing in it is random. ``lq`` is
    (T, 3, h, w) as stored, and ``degradation`` comes from the manifest.json of the twins, if there is one.

    Args:
        gt: the ground truth, a dataset of whole clips without degradation, e.g. {type: VideoClips, root: GT}.
        lq: folder with a folder of frames (CLIP/00000.png …) or a video (CLIP.mp4) for each clip, frame for frame,
            as ``keep-data splits`` writes it.

    Raises:
        UserError: a twin is missing, or the twins were made for another size; on reading, its number of frames
            differs, or its size is not an integer fraction.
    """

    def __init__(self, gt: Annotated[Any, DATASETS], lq: str) -> None:
        if gt.clip_length is not None or gt.pipeline is not None:
            raise UserError("PairedClips: gt must be a dataset of whole clips: no clip_length, no degradation")
        self.gt, self.lq = gt, expand(lq)
        if not self.lq.is_dir():
            raise UserError(f"{self.lq}: no such folder of low-quality clips")
        sources = {clip.name: self._files(clip.name) for clip in gt.clips}
        missing = [name for name, files in sources.items() if not files]
        if missing:
            raise UserError(f"{self.lq}: no low-quality twin of {len(missing)} clips: {', '.join(missing[:10])}")
        most = gt.max_frames or max(clip.frames for clip in gt.clips)
        self.clips = [SourceClip(clip.name, min(clip.frames, most), sources[clip.name]) for clip in gt.clips]
        self._truth = {clip.name: clip for clip in gt.clips}
        path = self.lq / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if manifest.get("size", gt.size) != gt.size:
            raise UserError(
                f"{self.lq}: was made from frames of {manifest['size']}×{manifest['size']}, but the size of gt is "
                f"{gt.size}; set the size of gt to {manifest['size']}, or make the split again with --size {gt.size}"
            )
        self._manifest = manifest.get("clips", {})

    def _files(self, name: str) -> tuple[Path, ...]:
        """The video of the twin, or its frames in order; empty if there is no twin."""
        for suffix in sorted(VIDEO_SUFFIXES):
            if (path := self.lq / f"{name}{suffix}").is_file():
                return (path,)
        folder = self.lq / name
        if not folder.is_dir():
            return ()
        names = [p.name for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
        return tuple(folder / n for n in sorted(names, key=by_number))

    def files(self, clip: SourceClip) -> list[Path] | None:
        """As :meth:`keep.data.base.ClipDataset.files`: of the truth, of its twin, and the manifest of the twins."""
        truth = self.gt.files(self._truth[clip.name])
        manifest = [path] if (path := self.lq / "manifest.json").is_file() else []
        return None if truth is None else [*truth, *clip.source, *manifest]

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
                f"{self.lq}: clip {clip.name} is {small[1]}x{small[0]}, not an integer fraction of its ground "
                f"truth's {size[1]}x{size[0]}; set the size of gt to the one the twins were made for"
            )
        drawn = self._manifest.get(clip.name, {}).get("degradation", [])
        return {**item, "lq": to_tensor(twin), "degradation": json.dumps(drawn)}
