"""Aligned faces from photographs and videos, with a detector that returns the position of the drawn face."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from keep.config import cli
from keep.data.images import read_images
from keep.data.tools import align
from keep.data.video_io import probe, write_video
from keep.faces.align import TEMPLATE_512
from keep.faces.detect import Face

POINTS = TEMPLATE_512 / 512 * 60 + (40, 20)
"""Five points of the face of :func:`picture`: the template at 60 pixels."""


def picture() -> np.ndarray:
    """A frame 160×120 with five coloured points of a face."""
    image = np.full((120, 160, 3), 90, np.uint8)
    for point, colour in zip(POINTS, [(255, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 255)], strict=True):
        cv2.circle(image, tuple(int(v) for v in point.round()), 3, colour, -1)
    return image


def detector(frame: np.ndarray) -> list[Face]:
    if (frame == 90).all():
        return []
    box = np.array([40, 20, 100, 80], np.float32)
    return [Face(box, POINTS.astype(np.float32), 1.0)]


@pytest.fixture(autouse=True)
def _known_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align, "default_detector", lambda: detector)


def test_photographs_and_videos_become_aligned_crops(tmp_path: Path, capsys) -> None:
    source = tmp_path / "in"
    (source / "b").mkdir(parents=True)
    cv2.imwrite(str(source / "a.png"), picture()[..., ::-1])
    cv2.imwrite(str(source / "a.jpg"), picture()[..., ::-1])
    cv2.imwrite(str(source / "empty.png"), np.full((120, 160, 3), 90, np.uint8))
    write_video(source / "b/clip.mkv", np.stack([picture()] * 6), fps=25, codec="ffv1")
    arguments = [str(source), str(tmp_path / "out"), "--size", "64", "--min-frames", "5"]
    assert align.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "3 written, 1 files skipped" in printed
    assert "empty.png: no face found" in printed
    for name in ("a_png.png", "a_jpg.png"):
        crop = read_images([tmp_path / "out" / name])[0]
        assert crop.shape == (64, 64, 3)
    x, y = (TEMPLATE_512[2] / 8).round().astype(int)
    assert read_images([tmp_path / "out/a_png.png"])[0][y, x].argmax() == 1  # the nose, which is green
    assert probe(tmp_path / "out/b/clip.mp4").frames == 6


def test_small_faces_are_skipped(tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), picture())
    assert align.main([str(tmp_path / "in"), str(tmp_path / "out"), "--size", "256"]) == 1
    assert "it would be enlarged 4.3 times" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_the_detector_can_be_named(tmp_path: Path, capsys) -> None:
    for text, message in (("YuNett", "no face detector"), ("YuNet=none.onnx", "no file none.onnx")):
        (tmp_path / "in").mkdir(exist_ok=True)
        assert align.main([str(tmp_path / "in"), str(tmp_path / "out"), "--detector", text]) == 2
        assert message in capsys.readouterr().err


def test_an_impossible_output_folder_is_reported(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.os, "access", lambda *_: False)
    (tmp_path / "in").mkdir()
    assert align.main([str(tmp_path / "in"), str(tmp_path / "new/out")]) == 2
    reason = f"cannot be the output folder: {tmp_path} is not writable"
    assert capsys.readouterr().err == f"error: {tmp_path}/new/out: {reason}\n"


def test_an_empty_folder_is_reported(tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    assert align.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "no photographs and no videos" in capsys.readouterr().err
