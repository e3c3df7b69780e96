"""The shape of pixels is kept; of the upright frame it is the turned one's."""

from fractions import Fraction
from typing import Any

import av
import pytest
from videos import copy, images_of, make

from keep.data.mux import VideoSource, VideoWriter, remux


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(128, 117), Fraction(1, 2)])
@pytest.mark.parametrize("codec", ["h264", "h265", "ffv1"])
def test_the_shape_of_pixels_is_kept(tmp_path, texture, codec, aspect):
    video = VideoSource(make(tmp_path / "in.mp4", texture(12)))
    assert video.display_aspect == 1
    video.pixel_aspect = aspect
    with VideoWriter(tmp_path / "wide.mkv", video, (48, 64), codec) as writer:
        for frame in video:
            writer.write(frame.image, frame)
    copy(tmp_path / "wide.mkv", tmp_path / "again.mkv", codec=codec)
    remux(VideoSource(tmp_path / "wide.mkv"), tmp_path / "remuxed.mkv")
    for name in ("wide.mkv", "again.mkv", "remuxed.mkv"):
        assert VideoSource(tmp_path / name).pixel_aspect == aspect, name


def test_lossless_pictures_stay_so_in_any_shape(tmp_path, texture):
    video = VideoSource(make(tmp_path / "in.mp4", texture(3)))
    video.pixel_aspect = Fraction(4, 3)
    with VideoWriter(tmp_path / "out.mkv", video, (48, 64), "ffv1") as writer:
        for frame in video:
            writer.write(frame.image, frame)
    assert (images_of(tmp_path / "out.mkv") == images_of(tmp_path / "in.mp4")).all()


def test_the_shape_of_a_turned_frames_pixels(tmp_path, texture):
    with av.open(str(tmp_path / "turned.mp4"), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(90)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(texture(1)[0], format="rgb24")))
        output.mux(stream.encode())
    assert VideoSource(tmp_path / "turned.mp4").display_aspect == pytest.approx(3 / 4)
