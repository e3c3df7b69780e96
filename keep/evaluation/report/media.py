"""Videos, x–t slices, gain maps and worst frames of a clip. The files are deterministic and hold no times."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keep.archs.confidence import ConfidenceHead
from keep.data.video_io import write_video
from keep.evaluation.confidence.figures import BRIGHT, map_figure, reliability_figure
from keep.evaluation.report.records import file_name
from keep.utils.figures import gain_figure
from keep.utils.io import write_file
from keep.utils.pictures import contact_sheet, encode_image, side_by_side, spread

KEY = 12  # frames from one key frame to the next, so that the page seeks quickly
WORST_TILE = 384  # px: longest side of a panel of a worst frame
ERROR_FULL = 64  # grey levels: the error with the brightest colour in an error map
NO_GAIN = (128, 128, 128)  # colour of a frame without a prediction


@dataclass
class Media:
    """Files of a clip, relative to the folder of the results.

    Attributes:
        videos: panel (``input``, restorers, ``truth``) → its video.
        gains: restorer → video of its gain maps.
        errors: restorer → video of the error that it expects, in colours.
        judged: restorer → picture of expected and true error, and of how far they can be relied on.
        slices: panel → x–t slice: row ``row`` of every frame, time downwards.
        row: of the ground truth, in pixels.
        worst: restorer → its worst frame: number, value, picture (input, output, ground truth, error).
        more: other files: side by side, contact sheet, gain figures.
    """

    videos: dict[str, str] = field(default_factory=dict)
    gains: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    judged: dict[str, list[str]] = field(default_factory=dict)
    slices: dict[str, str] = field(default_factory=dict)
    row: int = 0
    worst: dict[str, dict[str, Any]] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def save_clip(
    root: Path,
    folder: Path,
    clips: Mapping[str, np.ndarray],
    gains: Mapping[str, np.ndarray],
    fps: float,
    crf: int,
    errors: Mapping[str, np.ndarray] | None = None,
) -> Media:
    """Videos, slices and gain maps of one clip.

    Args:
        root: folder of the results; returned paths are relative to it.
        folder: of this clip, below ``root``.
        clips: panel → uint8 RGB (T, H, W, 3); ``input`` first, ``truth`` last.
        gains: restorer → (T, h, w) in [0, 1], NaN for a frame without one.
        fps: of the videos.
        crf: of their H.264 encoding.
        errors: restorer → low end, middle and high end of its expected error (3, T, b, b), in grey levels.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def path_of(name: str) -> tuple[Path, str]:
        path = folder / file_name(name)
        return path, path.relative_to(root).as_posix()

    media = Media(row=busiest_row(clips["truth"]))
    height = clips["truth"].shape[1]
    for name, clip in clips.items():
        path, media.videos[name] = path_of(f"{name}.mp4")
        write_video(path, clip, fps=fps, crf=crf, keyint=KEY)
        path, media.slices[name] = path_of(f"{name} xt.png")
        write_file(path, encode_image(clip[:, media.row * clip.shape[1] // height], "png"))
    for name, maps in gains.items():
        path, media.gains[name] = path_of(f"{name} gain.mp4")
        write_video(path, gain_frames(maps, clips["truth"].shape[1:3]), fps=fps, crf=crf, keyint=KEY)
        path, media.more[f"{name} gain"] = path_of(f"{name} gain.png")
        gain_figure(maps, clips["truth"], path)
    for name, bands in (errors or {}).items():
        path, media.errors[name] = path_of(f"{name} error.mp4")
        write_video(path, error_frames(bands[1], clips["truth"].shape[1:3]), fps=fps, crf=crf, keyint=KEY)
        paths = [path_of(f"{name} {what}.png") for what in ("maps", "reliability")]
        media.judged[name] = [relative for _, relative in paths]
        judged_figures(name, clips, gains.get(name), bands, [path for path, _ in paths])
    path, media.more["side by side"] = path_of("side by side.mp4")
    write_video(path, side_by_side(clips), fps=fps, crf=crf, keyint=KEY)
    path, media.more["contact sheet"] = path_of("contact sheet.png")
    contact_sheet(clips, path)
    return media


def save_frames(folder: Path, clips: Mapping[str, np.ndarray]) -> None:
    """Every frame of one clip without loss: ``folder/PANEL/00000.png``, …

    Args:
        folder: of this clip.
        clips: panel → uint8 RGB (T, H, W, 3).
    """
    for name, clip in clips.items():
        for t, frame in enumerate(clip):
            write_file(folder / file_name(name) / f"{t:05d}.png", encode_image(frame, "png"))


def save_worst(
    root: Path, folder: Path, name: str, clips: Mapping[str, np.ndarray], values: np.ndarray, higher_is_better: bool
) -> dict[str, Any] | None:
    """Save the worst frame of restorer ``name`` by ``values`` (T,): input, output, ground truth and error in a row.

    Returns:
        its number, its value and the path of the picture; None if no frame has a value.
    """
    known = np.where(np.isnan(values), np.inf if higher_is_better else -np.inf, values)
    if not np.isfinite(known).any():
        return None
    t = int(known.argmin() if higher_is_better else known.argmax())
    source, output, truth = (clips[k][t] for k in ("input", name, "truth"))
    error = error_map(output, truth)
    size = np.array(truth.shape[1::-1]) * min(1.0, WORST_TILE / max(truth.shape[:2]))
    width, height = (max(1, round(float(s))) for s in size)
    tiles = [cv2.resize(source, (width, height), interpolation=cv2.INTER_NEAREST)]
    tiles += [cv2.resize(x, (width, height), interpolation=cv2.INTER_AREA) for x in (output, truth, error)]
    path = folder / file_name(f"{name} worst.jpg")
    write_file(path, encode_image(np.concatenate(tiles, axis=1), "jpg"))
    return {"frame": t, "value": float(values[t]), "file": path.relative_to(root).as_posix()}


def error_map(output: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean absolute error over the channels as colours, black (0) to yellow (``ERROR_FULL`` grey levels or more).

    Both uint8 (H, W, 3) → uint8 (H, W, 3).
    """
    error = np.abs(output.astype(np.float32) - truth).mean(axis=-1) / ERROR_FULL
    return colours("inferno")[np.rint(np.clip(error, 0, 1) * 255).astype(np.uint8)]


def gain_frames(gains: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Gain maps (T, h, w) as frames, uint8 (T, height, width, 3): 0 dark blue, 1 yellow, no gain grey."""
    known = ~np.isnan(gains)
    levels = np.rint(np.clip(np.where(known, gains, 0), 0, 1) * 255).astype(np.uint8)
    maps = np.where(known[..., None], colours("viridis")[levels], np.array(NO_GAIN, np.uint8))
    return np.stack([cv2.resize(m, size[::-1], interpolation=cv2.INTER_NEAREST) for m in maps])


def error_frames(errors: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Expected errors (T, b, b) in grey levels as frames, uint8 (T, height, width, 3), in the colours of
    :func:`error_map` but three times as bright."""
    levels = np.rint(np.clip(errors / BRIGHT, 0, 1) * 255).astype(np.uint8)
    return np.stack([cv2.resize(colours("inferno")[m], size[::-1], interpolation=cv2.INTER_NEAREST) for m in levels])


def judged_figures(
    name: str, clips: Mapping[str, np.ndarray], gains: np.ndarray | None, bands: np.ndarray, paths: list[Path]
) -> None:
    """Two pictures: gain, expected and true error of some frames; and the reliability of the expected error."""
    blocks = bands.shape[-1]
    true = np.stack([true_error(a, b, blocks) for a, b in zip(clips[name], clips["truth"], strict=True)])
    rows = [
        {
            "name": f"frame {t + 1}", "input": clips["input"][t], "output": clips[name][t], "truth": clips["truth"][t],
            "gain": None if gains is None or np.isnan(gains[t]).all() else gains[t],
            "expected": bands[1][t], "true": true[t],
        }
        for t in spread(len(true), 3)
    ]  # fmt: skip
    map_figure(rows, paths[0], f"error that {name} expects, and its true error")
    reliability_figure(bands.reshape(3, -1), true.ravel(), ConfidenceHead().tails, paths[1])


def true_error(output: np.ndarray, truth: np.ndarray, blocks: int) -> np.ndarray:
    """Mean error of luma on blocks, uint8 (H, W, 3), twice → (blocks, blocks), in grey levels."""
    grey = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY).astype(np.float32) for x in (output, truth)]
    return cv2.resize(np.abs(grey[0] - grey[1]), (blocks, blocks), interpolation=cv2.INTER_AREA)


def busiest_row(truth: np.ndarray) -> int:
    """The row of (T, H, W, 3) with the most detail (eyes, mouth), within the middle half of the frame."""
    height = truth.shape[1]
    top, bottom = height // 4, max(height // 4 + 1, 3 * height // 4)
    middle = truth[:: max(1, len(truth) // 16), top:bottom].astype(np.float32).mean(axis=-1)
    return top + int(np.abs(np.diff(middle, axis=2)).mean(axis=(0, 2)).argmax())


@cache
def colours(name: str) -> np.ndarray:
    """A colour map of matplotlib, uint8 (256, 3)."""
    from matplotlib import colormaps

    return np.rint(colormaps[name](np.arange(256))[:, :3] * 255).astype(np.uint8)
