"""All eight orientations of the display matrix, read and written; sizes that change within a stream."""

from typing import Any

import av
import cv2
import numpy as np
import pytest
from videos import copy, images_of, make

from keep.data.mux import VideoSource, remux
from keep.data.video_io import read_video


def corners(image: np.ndarray) -> list[str]:
    """Colours at top left, top right, bottom left, bottom right."""
    spots = [image[y, x] for y in (6, -7) for x in (6, -7)]
    return ["rgbw"[3 if spot.min() > 100 else int(spot.argmax())] for spot in spots]


def marked(frames: int) -> np.ndarray:
    """A different colour in each corner."""
    clip = np.full((frames, 48, 64, 3), 40, np.uint8)
    for y, x, colour in ((0, 0, (255, 0, 0)), (0, 48, (0, 255, 0)), (32, 0, (0, 0, 255)), (32, 48, (255, 255, 255))):
        clip[:, y : y + 16, x : x + 16] = colour
    return clip


def matrix_of(path) -> list[int] | None:
    with av.open(str(path)) as container:
        frame: Any = next(container.decode(video=0))
        data = [bytes(d) for d in frame.side_data if d.type.name == "DISPLAYMATRIX"]
    return np.frombuffer(data[0], np.int32).tolist() if data else None


SHOWN = {
    (0, False): "rgbw", (90, False): "gwrb", (180, False): "wbgr", (-90, False): "brwg",
    (0, True): "grwb", (90, True): "wgbr", (180, True): "bwrg", (-90, True): "rbgw",
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(("rotation", "mirrored"), SHOWN)
def test_each_orientation_is_read_and_written(tmp_path, suffix, rotation, mirrored):
    source = make(tmp_path / f"in{suffix}", marked(8), rotation=rotation, mirrored=mirrored)
    expected = list(SHOWN[rotation, mirrored])
    assert corners(images_of(source)[0]) == expected
    assert corners(read_video(source)[0]) == expected, "also for training"
    video = VideoSource(source)
    assert (video.height, video.width) == ((64, 48) if abs(rotation) == 90 else (48, 64))
    other = ".mkv" if suffix == ".mp4" else ".mp4"
    for out in (tmp_path / f"copy{suffix}", tmp_path / f"copy{other}"):
        copy(source, out)
        assert corners(images_of(out)[0]) == expected
        assert matrix_of(out) == matrix_of(source)
    remux(video, tmp_path / f"remux{other}")
    assert corners(images_of(tmp_path / f"remux{other}")[0]) == expected
    assert matrix_of(tmp_path / f"remux{other}") == matrix_of(source)


def test_other_sizes_within_a_stream_are_scaled_and_counted(tmp_path, texture):
    """A broadcast that changes from 64×48 to 96×72 and back."""
    parts = []
    for k, size in enumerate(((48, 64), (72, 96), (48, 64))):
        clip = np.stack([cv2.resize(image, size[::-1]) for image in texture(10)])
        parts.append(make(tmp_path / f"{k}.ts", clip, start=400 * k).read_bytes())
    (tmp_path / "in.ts").write_bytes(b"".join(parts))
    video = VideoSource(tmp_path / "in.ts")
    frames = list(video)
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert dict(video.resized) == {(96, 72): 10}
    assert (len(frames), video.lost) == (30, 0)
