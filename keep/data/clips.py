"""Datasets of plain files: videos, folders of frames, single images."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from keep.config.registry import DATASETS
from keep.data.base import ClipDataset, SourceClip
from keep.data.decode import VideoFile
from keep.data.images import IMAGE_SUFFIXES, by_number, read_images
from keep.data.index import FolderIndex
from keep.data.readers import VideoDataset
from keep.data.timeline import Timeline, read_timeline
from keep.data.video_io import VIDEO_SUFFIXES
from keep.utils.errors import UserError
from keep.utils.progress import progress_bar

T = TypeVar("T")


@DATASETS.register()
class VideoClips(VideoDataset):
    """Clips that are video files, one clip per file."""

    expects = f"expected video files ({', '.join(sorted(VIDEO_SUFFIXES))}) in it or its subfolders"

    def find(self) -> list[SourceClip]:
        if self.root.is_file():
            timeline = read_timeline(self.root)
            return [SourceClip(self.root.stem, timeline.info.frames, ("", timeline))]
        index = FolderIndex(self.root, "videos", self.keeps_index)
        paths = [folder / name for folder, names in index.walk(VIDEO_SUFFIXES, names=True) for name in names]
        clips = []
        for path in with_progress(sorted(paths, key=lambda p: by_number(p.as_posix())), self.root):
            name = path.relative_to(self.root).with_suffix("").as_posix()
            try:
                data = index.value(path, lambda path=path: read_timeline(path).dump())
            except UserError as error:
                if self.on_bad == "keep":
                    clips.append(SourceClip(name, 0, (path.suffix, error)))
                else:
                    self.reject(str(error))
                continue
            timeline = Timeline.load(data)
            # The source holds the suffix too: the name of a clip is its path without it.
            clips.append(SourceClip(name, timeline.info.frames, (path.suffix, timeline)))
        index.save()
        return clips

    def read(self, clip: SourceClip, start: int, count: int, step: int) -> np.ndarray:
        path, timeline = self.locate(clip)
        return self.read_file(VideoFile(path), start, count, step, timeline)

    def locate(self, clip: SourceClip) -> tuple[Path, Timeline]:
        """File and timeline of a clip.

        Raises:
            UserError: the clip is damaged (``on_bad: keep``).
        """
        timeline = clip.source[1]
        if isinstance(timeline, UserError):
            raise UserError(str(timeline))
        return self.files(clip)[0], timeline

    def files(self, clip: SourceClip) -> list[Path]:
        return [self.root if self.root.is_file() else self.root / f"{clip.name}{clip.source[0]}"]


@DATASETS.register()
class FrameFolders(ClipDataset):
    """Clips that are folders of frame images: ``root/clip/00000.png``.

    Every folder below ``root`` that holds images is a clip, its frames in the order of their numbers. If ``root``
    itself holds the images, each image is a clip of one frame.
    """

    expects = "expected folders of frame images, or images, in it"

    def find(self) -> list[SourceClip]:
        if self.root.is_file():
            raise UserError(f"{self.root}: is a file; {type(self).__name__} needs a folder (VideoClips reads videos)")
        index = FolderIndex(self.root, "frames", self.keeps_index)
        found = [f for f in with_progress(index.walk(IMAGE_SUFFIXES, names=False), self.root) if f[1]]
        index.save()
        if found and found[0][0] == self.root:
            if len(found) > 1:
                raise UserError(
                    f"{self.root}: holds images both directly and in folders; point root at one of the two, "
                    "or use ImageFolder for single images"
                )
            return single_images(self.root, self.keeps_index)
        found.sort(key=lambda f: by_number(f[0].as_posix()))
        return [SourceClip(folder.relative_to(self.root).as_posix(), n, None) for folder, n in found]

    def read(self, clip: SourceClip, start: int, count: int, step: int) -> np.ndarray:
        return read_images(self.paths(clip)[start : start + (count - 1) * step + 1 : step])

    def paths(self, clip: SourceClip) -> list[Path]:
        """The images of a clip, in order.

        Raises:
            UserError: their number differs from what was counted.
        """
        paths = self._images(clip)
        if len(paths) != clip.frames:
            raise UserError(f"{self.root / clip.name}: holds {len(paths)} images, but {clip.frames} were expected")
        return paths

    def files(self, clip: SourceClip) -> list[Path]:
        return self._images(clip)

    def _images(self, clip: SourceClip) -> list[Path]:
        if clip.source is not None:
            return [self.root / clip.source]
        folder = self.root / clip.name
        try:
            names = [p.name for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
        except OSError as error:
            raise UserError(f"{folder}: cannot be read: {error.strerror}") from None
        return [folder / name for name in sorted(names, key=by_number)]


@DATASETS.register()
class ImageFolder(FrameFolders):
    """Images, each a clip of one frame, at ``root`` or in its subfolders, as FFHQ is laid out; for stage I."""

    expects = "expected images in it or its subfolders"

    def find(self) -> list[SourceClip]:
        if self.root.is_file():
            raise UserError(f"{self.root}: is a file; ImageFolder needs a folder")
        return single_images(self.root, self.keeps_index)


def single_images(root: Path, keeps_index: bool) -> list[SourceClip]:
    """Every image in ``root`` or its subfolders as a clip of one frame."""
    index = FolderIndex(root, "images", keeps_index)
    listed = list(with_progress(index.walk(IMAGE_SUFFIXES, names=True), root))
    index.save()
    files = [(folder / name).relative_to(root) for folder, names in listed for name in names]
    files.sort(key=lambda f: by_number(f.as_posix()))
    return [SourceClip(path.with_suffix("").as_posix(), 1, path.as_posix()) for path in files]


def with_progress(items: Iterable[T], root: Path) -> Iterable[T]:
    """``items`` with a progress bar, shown after two seconds."""
    return progress_bar(items, desc=f"scanning {root}", unit=" clips", delay=2, leave=False)
