from typing import Any

import av
import cv2
import numpy as np
import pytest
from videos import copy, images_of, make

from keep.data.mux import Colours, FrameFolder, VideoWriter
from keep.data.mux.colours import EXACT, to_deep, to_rgb
from keep.data.mux.layout import layout_of
from keep.data.video_io import read_video


@pytest.mark.parametrize("colours", [(1, 1, 1, 1), (6, 6, 6, 2), (9, 9, 14, 1), None])
def test_colour_tags_and_colours_are_kept(tmp_path, colours):
    frames = np.full((3, 32, 32, 3), (200, 40, 20), np.uint8)
    source = make(tmp_path / "in.mp4", frames, colours=colours)
    copy(source, tmp_path / "out.mp4", crf=5)
    tags = []
    for path in (source, tmp_path / "out.mp4"):
        with av.open(str(path)) as container:
            frame: Any = next(container.decode(video=0))
            tags.append((frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range))
    assert tags[0] == tags[1]
    if colours:
        assert tags[0] == colours
    np.testing.assert_allclose(read_video(tmp_path / "out.mp4").mean((0, 1, 2)), [200, 40, 20], atol=5)


@pytest.mark.parametrize("colours", [None, (1, 1, 1, 1), (6, 6, 6, 2)])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_encoding_shifts_no_colour(tmp_path, colours, codec):
    """Neither darker nor greener: a grey ramp and patches of many colours, within half a level."""
    patches = np.random.default_rng(0).integers(20, 236, (8, 32, 3)).repeat(8, 0).repeat(8, 1)
    ramp = np.broadcast_to(np.arange(256)[None, :, None], (64, 256, 3))
    picture = np.concatenate([ramp, patches]).astype(np.uint8)
    folder = tmp_path / "frames"
    folder.mkdir()
    clip = np.stack([picture] * 5)
    for i, image in enumerate(clip):
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1])
    video: Any = FrameFolder(folder)
    if colours:
        video.colours = Colours(*colours)
    with VideoWriter(tmp_path / "out.mp4", video, (128, 256), codec, crf=1) as writer:
        for frame in video:
            writer.write(frame.image, frame)
    first = images_of(tmp_path / "out.mp4")
    for half in (slice(0, 64), slice(64, 128)):
        assert np.abs((first - clip)[:, half].mean((0, 1, 2))).max() < 0.5
    copy(tmp_path / "out.mp4", tmp_path / "again.mp4", codec=codec, crf=1)
    assert np.abs((images_of(tmp_path / "again.mp4") - first).mean((0, 1, 2))).max() < 0.2


@pytest.mark.parametrize("form", ["yuv420p", "yuvj420p", "yuv422p", "nv12", "gray", "rgb24", "bgra", "rgb565le"])
@pytest.mark.parametrize("size", [(33, 17), (64, 48)])
def test_pixels_are_those_of_ffmpegs_exact_conversion(form, size):
    """They go through planar RGB, which is faster."""
    frame = picture(size, form)
    expected = frame.reformat(format="rgb24", interpolation=EXACT).to_ndarray()
    np.testing.assert_array_equal(to_rgb(frame, (0, False)), expected)


@pytest.mark.parametrize(
    ("form", "deep"),
    [("yuv420p10le", "rgb48le"), ("gbrp10le", "rgb48le"), ("yuva444p10le", "rgba64le"), ("yuva420p", "rgba")],
)
def test_deep_pixels_are_those_of_ffmpegs_exact_conversion(form, deep):
    frame = picture((33, 17), form)
    expected = frame.reformat(format=deep, interpolation=EXACT).to_ndarray()
    np.testing.assert_array_equal(to_deep(frame, layout_of(frame), (0, False)), expected)


def picture(size: tuple[int, int], form: str) -> Any:
    """Noise in a pixel format; size: (width, height)."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), np.uint8)
    return av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=form)
