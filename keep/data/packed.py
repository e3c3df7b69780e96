"""Packed clips: many videos in one file, to copy a data set to another machine and train from it there.

The file is a plain ZIP without compression: ``CLIP.mp4``, ``CLIP.mkv``, … and ``index.json`` with the frame times of
each clip, so that nothing is unpacked or scanned before the first sample.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keep.config.registry import DATASETS
from keep.data.base import ClipDataset, SourceClip
from keep.data.clips import VideoClips
from keep.data.decode import VideoFile
from keep.data.readers import VideoDataset
from keep.data.timeline import Timeline, read_timeline
from keep.data.video_io import write_video
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite
from keep.utils.progress import progress_bar

FORMAT = 1
INDEX = "index.json"


@DATASETS.register()
class PackedClips(VideoDataset):
    """Clips in one file, ``root``, written by :func:`pack_clips`."""

    expects = "expected a file written by keep-data pack"

    def find(self) -> list[SourceClip]:
        if self.root.is_dir():
            raise UserError(f"{self.root}: is a folder; PackedClips needs the packed file")
        try:
            with zipfile.ZipFile(self.root) as archive:
                index = json.loads(archive.read(INDEX))
                sizes = {i.filename: i.file_size for i in archive.infolist()}
        except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
            raise UserError(f"{self.root}: not a file of packed clips, or a truncated one: {error}") from None
        if index.get("format") != FORMAT:
            raise UserError(f"{self.root}: packed by another version (format {index.get('format')}); pack it again")
        clips = []
        for entry in index["clips"]:
            if sizes.get(entry["file"]) != entry["size"]:
                self.reject(f"{self.root}: {entry['file']}: missing or cut short")
                continue
            source = (entry["file"], Timeline.load(entry["timeline"]))
            clips.append(SourceClip(entry["name"], source[1].info.frames, source))
        return clips

    def read(self, clip: SourceClip, start: int, count: int, step: int) -> np.ndarray:
        file, timeline = clip.source
        try:
            data = self._archive().read(file)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.root}: {file}: {error}") from None
        return self.read_file(VideoFile(f"{self.root}: {file}", data), start, count, step, timeline)

    def files(self, clip: SourceClip) -> list[Path]:
        return [self.root]

    def _archive(self) -> zipfile.ZipFile:
        """Opened once per process: processes that share a file handle would share its position."""
        opened = self.__dict__.get("_opened")
        if opened is None or opened[0] != os.getpid():
            opened = self._opened = (os.getpid(), zipfile.ZipFile(self.root))
        return opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_opened"}


def pack_clips(
    datasets: ClipDataset | Sequence[ClipDataset],
    path: str | Path,
    codec: Literal["copy", "libx264", "ffv1"] = "copy",
    crf: int = 12,
    keyint: int = 12,
    piece: int | None = None,
) -> None:
    """Write the clips of one or several datasets into one file, atomically.

    Args:
        datasets: each with ``clip_length`` None. Their ``size``, ``max_frames`` and alignment apply to the packed
            clips, unless they are copied. With several, the names of the clips start with the dataset's folder.
        path: the file, e.g. ``clips.zip``.
        codec: ``"copy"`` copies video files unchanged; otherwise frames are encoded again, by libx264 with colours at
            full resolution, or losslessly by ffv1.
        crf: of libx264.
        keyint: frames from one key frame to the next: a training clip is decoded from the key frame before it.
        piece: cut clips into pieces of that many frames, CLIP_000, CLIP_001, …, so that an epoch visits long clips more
            often; a rest shorter than half a piece is dropped. None does not cut.

    Raises:
        UserError: a clip cannot be read or copied, the file cannot be written, or two clips have the same name.
    """
    path, sources = Path(path), [datasets] if isinstance(datasets, ClipDataset) else list(datasets)
    for dataset in sources:
        if dataset.clip_length is not None:
            raise UserError("pack_clips: the dataset's clip_length must be null: only whole clips are packed")
        if codec == "copy" and (piece or not isinstance(dataset, VideoClips)):
            what = "pieces cannot be copied" if piece else f"{type(dataset).__name__} holds no video files to copy"
            raise UserError(f"pack_clips: {what}; encode with libx264 or ffv1")
    if not path.parent.is_dir():
        raise UserError(f"{path}: cannot write: there is no folder {path.parent}")
    entries: list[dict[str, Any]] = []
    pending = [(dataset, number) for dataset in sources for number in range(len(dataset.clips))]
    try:
        with (
            AtomicWrite(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
            tempfile.TemporaryDirectory() as scratch,
        ):
            for dataset, number in progress_bar(pending, desc=f"packing {path}", unit=" clips", delay=2):
                prefix = f"{dataset.root.name}/" if len(sources) > 1 else ""
                for name, file, timeline in _files(dataset, number, codec, crf, keyint, piece, Path(scratch)):
                    name, data = f"{prefix}{name}", file.read_bytes()
                    archive.writestr(f"{name}{file.suffix}", data)
                    about = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                    entries.append({"name": name, "file": f"{name}{file.suffix}", **about, "timeline": timeline.dump()})
            double, times = Counter(e["name"] for e in entries).most_common(1)[0]
            if times > 1:
                raise UserError(f"pack_clips: {times} clips are named {double}; rename them or their folders")
            archive.writestr(INDEX, json.dumps({"format": FORMAT, "clips": entries}))
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror or error}") from error


def _files(
    dataset: ClipDataset, number: int, codec: str, crf: int, keyint: int, piece: int | None, scratch: Path
) -> Iterator[tuple[str, Path, Timeline]]:
    """(name, video file, timeline) of each piece of a clip."""
    clip = dataset.clips[number]
    if codec == "copy":
        assert isinstance(dataset, VideoClips)
        yield clip.name, *dataset.locate(clip)
        return
    fps = dataset.locate(clip)[1].info.fps if isinstance(dataset, VideoClips) else 25
    file = scratch / ("clip.mkv" if codec == "ffv1" else "clip.mp4")
    frames = dataset.ground_truth(0, number).gt
    length = piece or len(frames)
    starts = [s for s in range(0, len(frames), length) if s == 0 or len(frames) - s >= length / 2]
    for i, start in enumerate(starts):
        pix_fmt = "yuv444p" if codec == "libx264" else None
        write_video(file, frames[start : start + length], fps, codec, crf, pix_fmt, keyint)
        yield clip.name if len(starts) == 1 else f"{clip.name}_{i:03d}", file, read_timeline(file)
