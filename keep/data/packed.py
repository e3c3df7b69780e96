"""Packed clips: many videos in one file, to move a set to another machine in one piece and train from it there.

The file is a plain ZIP without compression: ``CLIP.mp4``, ``CLIP.mkv``, … and ``index.json``, which holds each clip's
frame times, so that nothing needs to be unpacked or gone through before the first sample.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from keep.data.clips import Clip, ClipDataset, VideoClips
from keep.data.video_io import Timeline, read_timeline, read_video, write_video
from keep.errors import UserError
from keep.registry import DATASETS

FORMAT = 1
INDEX = "index.json"


@DATASETS.register()
class PackedClips(ClipDataset):
    """Clips in one file, which ``root`` names, as :func:`pack_clips` writes it."""

    expects = "expected a file written by pack_clips"

    def find(self) -> list[Clip]:
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
        stat = self.root.stat()
        clips = []
        for entry in index["clips"]:
            if sizes.get(entry["file"]) != entry["size"]:
                self.reject(f"{self.root}: {entry['file']}: missing or cut short")
                continue
            source = (entry["file"], Timeline.load(entry["timeline"]))
            clips.append(Clip(entry["name"], source[1].info.frames, source, (entry["size"], stat.st_mtime_ns)))
        return clips

    def read(self, clip: Clip, start: int, count: int, step: int) -> np.ndarray:
        file, timeline = clip.source
        try:
            data = self._archive().read(file)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.root}: {file}: {error}") from None
        return read_video(f"{self.root}: {file}", start, count, step, timeline, data)

    def _archive(self) -> zipfile.ZipFile:
        """Opened once a process: two that share a file handle would move it under each other."""
        opened = self.__dict__.get("_opened")
        if opened is None or opened[0] != os.getpid():
            opened = self._opened = (os.getpid(), zipfile.ZipFile(self.root))
        return opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_opened"}


def pack_clips(
    dataset: ClipDataset,
    path: str | Path,
    codec: Literal["copy", "libx264", "ffv1"] = "copy",
    crf: int = 12,
    keyint: int = 12,
) -> None:
    """Write a dataset's clips, whole, into one file; it appears whole or not at all.

    Args:
        dataset: ``clip_length`` None. Its ``size``, ``max_frames`` and alignment hold for the packed clips, unless
            they are copied.
        path: the file, e.g. ``clips.zip``.
        codec: ``"copy"`` takes video files as they are; otherwise frames are encoded again, by ffv1 without loss.
        crf: of libx264.
        keyint: frames from one key frame to the next: a training clip is decoded from the one before it.

    Raises:
        UserError: a clip cannot be read, or cannot be copied, or the file cannot be written.
    """
    path = Path(path)
    if dataset.clip_length is not None:
        raise UserError("pack_clips: the dataset's clip_length must be null: clips are packed whole")
    if codec == "copy" and not isinstance(dataset, VideoClips):
        raise UserError(
            f"pack_clips: {type(dataset).__name__} holds no video files to copy; encode with libx264 or ffv1"
        )
    if not path.parent.is_dir():
        raise UserError(f"{path}: cannot write: there is no folder {path.parent}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    entries = []
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive, tempfile.TemporaryDirectory() as scratch:
            for number, clip in enumerate(tqdm(dataset.clips, desc=f"packing {path}", unit=" clips", delay=2)):
                if codec == "copy":
                    assert isinstance(dataset, VideoClips)
                    file, timeline = dataset.where(clip)
                else:
                    file = Path(scratch) / ("clip.mkv" if codec == "ffv1" else "clip.mp4")
                    fps = dataset.where(clip)[1].info.fps if isinstance(dataset, VideoClips) else 25
                    write_video(file, dataset.ground_truth(0, number).gt, fps, codec, crf, keyint=keyint)
                    timeline = read_timeline(file)
                name, data = f"{clip.name}{file.suffix}", file.read_bytes()
                archive.writestr(name, data)
                about = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                entries.append({"name": clip.name, "file": name, **about, "timeline": timeline.dump()})
            archive.writestr(INDEX, json.dumps({"format": FORMAT, "clips": entries}))
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
