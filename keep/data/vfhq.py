"""VFHQ: folders of frames, its list of clips, and its landmarks, which align every frame."""

import math
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keep.config.registry import DATASETS
from keep.data.base import SourceClip
from keep.data.clips import FrameFolders
from keep.data.images import read_images
from keep.data.region import Region
from keep.degradation.resize import Downsample
from keep.faces.align import crop, similarity
from keep.faces.smooth import smooth
from keep.utils.errors import UserError
from keep.utils.paths import expand
from keep.utils.ranges import Sigma


@DATASETS.register()
class VFHQ(FrameFolders):
    """VFHQ as published: ``root/CLIP/00000000.png``, with landmarks in ``landmarks/CLIP.txt``.

    With ``landmarks``, a frame is not cut to its central square: its five points bring it onto the FFHQ template. Each
    frame uses its own row of points, for any start, interval or direction of the clip.

    ``align`` sets the order of alignment and degradation. A video that is to be restored comes degraded and is then
    aligned: its noise and blocks turn and move with the head, its blur is of the camera, and the codec saw the motion.
    The authors align after the codec, too. So ``after`` is the default: a window of the source frames around the face
    is degraded and the result aligned. The window is enlarged or reduced as the alignment does it on average over the
    clip: blur is still in pixels of the aligned frame. ``before`` degrades the aligned frames. The ground truth is the
    same.

    Args:
        root: folder with the folders of the clips.
        landmarks: folder of landmark files, one per clip, in either published layout (see :func:`read_landmarks`);
            null if the frames are aligned.
        meta_info: text file with the clips to use, one ``CLIP/NUMBER_OF_FRAMES`` per line; null uses every folder.
        align: with ``landmarks``: align the frames before they are degraded, or after it. Photographs that
            ``move_stills`` turns into clips are always aligned before.
        smooth: σ in frames of the temporal filter of the landmarks, eq. (10); supplement B.1: 5. 0 does not filter.
    """

    def __init__(
        self,
        root: str,
        landmarks: str | None = None,
        meta_info: str | None = None,
        align: Literal["before", "after"] = "after",
        smooth: Sigma = 5.0,
        **options: Any,
    ) -> None:
        self.landmarks = None if landmarks is None else expand(landmarks)
        self.meta_info = None if meta_info is None else expand(meta_info)
        self.align, self.smooth = align, smooth
        if self.landmarks is not None and not self.landmarks.is_dir():
            raise UserError(f"landmarks: there is no folder {self.landmarks}")
        super().__init__(root, **options)

    def find(self) -> list[SourceClip]:
        clips = super().find() if self.meta_info is None else self._listed(self.meta_info)
        if self.landmarks is None:
            return clips
        names = {p.name for p in self.landmarks.iterdir() if p.suffix == ".txt" and p.name[0] != "."}
        kept = []
        for clip in clips:
            if f"{_last(clip.name)}.txt" in names:
                kept.append(clip)
            else:
                self.reject(f"{self.landmarks / _last(clip.name)}.txt: no landmarks of clip {clip.name}")
        return kept

    def files(self, clip: SourceClip) -> list[Path]:
        own = [] if self.landmarks is None else [self.landmarks / f"{_last(clip.name)}.txt"]
        return super().files(clip) + own

    def _listed(self, path: Path) -> list[SourceClip]:
        clips = []
        for name, frames in read_meta_info(path).items():
            folder = self.root / name
            if not folder.is_dir():
                self.reject(f"{folder}: {path} names this clip, but there is no such folder")
                continue
            clips.append(SourceClip(name, frames, None))
        return clips

    def about(self) -> dict[str, Any]:
        after = {"align": "after"} if self._aligns_after else {}  # caches made before the option align before
        return {**super().about(), "aligned": self.landmarks is not None, "smooth": self.smooth, **after}

    @property
    def _aligns_after(self) -> bool:
        return self.landmarks is not None and self.align == "after" and self.pipeline is not None

    def read_square(self, clip: SourceClip, start: int, count: int, step: int) -> np.ndarray:
        return self.read_pair(clip, start, count, step)[0]

    def read_pair(self, clip: SourceClip, start: int, count: int, step: int) -> tuple[np.ndarray, Region | None]:
        if self.landmarks is None:
            return super().read_square(clip, start, count, step), None
        paths, drawn = self.paths(clip), range(start, start + (count - 1) * step + 1, step)
        frames = read_images([paths[n] for n in drawn])
        file = self.landmarks / f"{_last(clip.name)}.txt"
        points = smooth(read_landmarks(file, [p.name for p in paths], frames.shape[1:3]), self.smooth)
        for n in drawn:
            if not np.isfinite(points[n]).all():
                raise UserError(f"{file}: no landmark row for frame {paths[n].name}")
        matrices = [similarity(points[n], self.size) for n in drawn]
        aligned = np.stack([crop(f, m, self.size) for f, m in zip(frames, matrices, strict=True)])
        if not self._aligns_after or self.pipeline is None:
            return aligned, None
        scale = math.prod(step.scale for step in self.pipeline.steps if isinstance(step, Downsample))
        return aligned, Region.around(frames, matrices, self.size, 2 * scale)  # 2: the codec's colours


def read_meta_info(path: str | Path) -> dict[str, int]:
    """Clip → number of frames, from lines ``CLIP/NUMBER`` or ``CLIP NUMBER``.

    Raises:
        UserError: no such file, or a line of another form.
    """
    clips: dict[str, int] = {}
    for number, line in enumerate(_text(Path(path)).splitlines(), 1):
        if line.strip():
            match = re.fullmatch(r"(.+)[/\s](\d+)", line.strip())
            if not match:
                raise UserError(f"{path}:{number}: expected CLIP/NUMBER_OF_FRAMES, got {line.strip()!r}")
            clips[match[1].rstrip("/ ")] = int(match[2])
    return clips


def read_landmarks(path: str | Path, names: list[str], size: tuple[int, int]) -> np.ndarray:
    """Five points of each frame of a clip, from a file in either of two layouts.

    - Frames and points, as KEEP's authors prepared them: rows ``00000000.png x1 y1 … x5 y5``, in pixels of the frames.
      The suffix of the name is optional.
    - VFHQ's own: after a header, rows ``FRAME INDEX X0 Y0 W H x1 y1 … x5 y5`` in pixels of the source video, and a line
      ``CROP …`` that ends in the corners x0 y0 x1 y1 of the clip in it. FRAME counts in the source video. If the
      numbers in the frames' names are those of FRAME (or of INDEX), each frame takes the row of its number. Otherwise
      the frames take the rows in order, and there must be as many rows as frames.

    Args:
        path: the landmark file of the clip.
        names: its frame files in order.
        size: (H, W) of the frames, in pixels.

    Returns:
        float64 (n, 5, 2), (x, y) in pixels of the frames; NaN for a frame without a row.

    Raises:
        UserError: no such file; no rows in it; an invalid row; rows that match no frame.
    """
    path = Path(path)
    named: dict[str, list[float]] = {}
    source: list[tuple[int, int, list[float]]] = []
    corners: list[float] | None = None
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        try:
            if line.startswith("CROP"):
                corners = [float(w) for w in words[-4:]]
            elif len(words) == 11 and words[0][0].isdigit():
                named[Path(words[0]).stem] = [float(w) for w in words[1:]]
            elif len(words) >= 16 and words[0].isdecimal():
                source.append((int(words[0]), int(words[1]), [float(w) for w in words[6:16]]))
            elif words and words[0][0].isdigit():
                raise ValueError(f"{len(words)} values")
        except ValueError as error:
            raise UserError(f"{path}:{number}: not a landmark row: {error}") from None
    if named:
        rows = [named.get(Path(name).stem) for name in names]
    elif source:
        rows = _matched(source, names)
        if rows is None:
            raise UserError(
                f"{path}: its {len(source)} rows fit the {len(names)} frames neither by number nor by order"
            )
    else:
        raise UserError(f"{path}: holds no landmark rows")
    points = np.array([[np.nan] * 10 if row is None else row for row in rows]).reshape(-1, 5, 2)
    if source and corners is not None:
        x0, y0, x1, y1 = corners
        points = (points - (x0, y0)) * (size[1] / (x1 - x0), size[0] / (y1 - y0))
    if np.isnan(points).all():
        raise UserError(f"{path}: its rows match no frame of the clip ({names[0]} … {names[-1]})")
    return points


def _matched(source: list[tuple[int, int, list[float]]], names: list[str]) -> list[list[float] | None] | None:
    """VFHQ's rows in the order of the frames, with None for a frame without a row; None if they cannot be matched."""
    numbers = [int(digits[-1]) if (digits := re.findall(r"\d+", Path(name).stem)) else -1 for name in names]
    for column in (0, 1):
        by_number = {row[column]: row[2] for row in source}
        hits = sum(n in by_number for n in numbers)
        if len(by_number) == len(source) and hits > len(numbers) / 2:
            return [by_number.get(n) for n in numbers]
    return [row[2] for row in sorted(source, key=lambda row: row[0])] if len(source) == len(names) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not a text file'}") from None


def _last(name: str) -> str:
    return name.rpartition("/")[2]
