"""Every stream is kept, transcoded without loss, or named before the work."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from videos import copy

from keep.data.mux import VideoSource, remux
from keep.data.mux.streams import plans_of

APPLE = {"com.apple.quicktime.make": "Apple", "com.apple.quicktime.location.ISO6709": "+48.1+011.5/", "model": "X"}


def with_sound(path: Path, codec: str, rate: int = 16000, gap: int = 0, layout: str = "mono") -> Path:
    """Ten frames and half a second of sound; ``gap``: seconds without sound in its middle."""
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = output.add_stream(codec, rate=rate)
        sound.codec_context.layout = layout
        sound.bit_rate = 64000
        for t in range(10):
            output.mux(video.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9 * t, np.uint8), format="rgb24")))
        output.mux(video.encode())
        size = sound.codec_context.frame_size if codec != "pcm_alaw" else 0
        resampler = av.AudioResampler(sound.format, layout, rate, frame_size=size or None)
        for i in range(8):
            wave = (9000 * np.sin(np.arange(1000 * i, 1000 * (i + 1)) / 9)).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            frame.rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = 1000 * i + (gap * rate if i > 3 else 0)
            for ready in resampler.resample(frame):
                output.mux(sound.encode(ready))
        output.mux(sound.encode())
    return path


def samples_of(path: Path) -> np.ndarray:
    """All samples of the sound, in 16 bits."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono")
        frames: Any = container.decode(audio=0)
        parts = [ready.to_ndarray()[0] for frame in frames for ready in resampler.resample(frame)]
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("name", "codec", "suffix", "written"),
    [
        ("in.mov", "pcm_alaw", ".mkv", "pcm_s16le"),
        ("in.mov", "pcm_alaw", ".mp4", "flac"),
        ("in.avi", "adpcm_ms", ".mkv", "pcm_s16le"),
        ("in.avi", "adpcm_ms", ".mp4", "flac"),
        ("in.avi", "adpcm_ima_wav", ".mov", "pcm_s16le"),
        ("in.avi", "pcm_u8", ".mp4", "flac"),
        ("in.mov", "pcm_s16be", ".m4v", "alac"),
        ("in.wmv", "wmav2", ".mp4", "flac"),
    ],
)
def test_sound_that_does_not_fit_is_written_without_loss(tmp_path, name, codec, suffix, written):
    source = with_sound(tmp_path / name, codec)
    (plan,) = plans_of(source, suffix)
    assert (plan.how, plan.encoder) == ("transcode", written)
    assert f"({codec}): written as {written}, without loss" in plan.note
    out = tmp_path / f"out{suffix}"
    copy(source, out)
    given, kept = samples_of(source), samples_of(out)
    assert len(given) - 64 <= len(kept) <= len(given) + 4608
    assert np.abs(kept[: len(given)].astype(int) - given[: len(kept)]).max() <= (1 if codec == "wmav2" else 0)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == written


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le"])
@pytest.mark.parametrize("name", ["in.avi", "in.mkv"])
def test_stereo_pcm_without_places_of_its_channels(tmp_path, name, codec, suffix):
    """AVI and Matroska store only the number of channels; MP4 needs their places, at its end."""
    source = with_sound(tmp_path / name, codec, layout="stereo")
    (plan,) = plans_of(source, suffix)
    assert plan.how == "copy"
    for out in (tmp_path / f"out{suffix}", tmp_path / f"remuxed{suffix}"):
        copy(source, out) if out.stem == "out" else remux(VideoSource(source), out)
        np.testing.assert_array_equal(samples_of(out), samples_of(source))
        with av.open(str(out)) as container:
            assert container.streams.audio[0].codec_context.channels == 2


@pytest.mark.parametrize(("code", "kept"), [("deu", "ger"), ("fra", "fra"), ("zho", "chi"), ("eng", "eng")])
def test_quicktime_keeps_the_language(tmp_path, code, kept):
    with av.open(str(tmp_path / "in.mkv"), "w") as output:
        video: Any = output.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = output.add_stream("aac", rate=16000, layout="mono")
        sound.metadata["language"] = code
        output.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        output.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        output.mux(sound.encode(frame))
        output.mux(sound.encode())
    copy(tmp_path / "in.mkv", tmp_path / "out.mov")
    with av.open(str(tmp_path / "out.mov")) as container:
        assert container.streams.audio[0].metadata["language"] == kept


def test_sound_that_stops_for_a_while_stays_in_step(tmp_path):
    source = with_sound(tmp_path / "in.wmv", "pcm_alaw", gap=2)
    copy(source, tmp_path / "out.mp4")
    kept = samples_of(tmp_path / "out.mp4")
    assert np.abs(kept[:3900]).max() > 5000
    assert not kept[4100:35900].any(), "silence"
    assert np.abs(kept[36100:39000]).max() > 5000


def picture_file(kind: str) -> bytes:
    return cv2.imencode(kind, np.full((32, 32, 3), (0, 0, 200), np.uint8))[1].tobytes()


@pytest.fixture
def album(tmp_path) -> Path:
    """A Matroska file with a font, a cover, and a second video."""
    path = tmp_path / "album.mkv"
    with av.open(str(path), "w") as output:
        videos: list[Any] = [output.add_stream("libx264", rate=25) for _ in range(2)]
        for video in videos:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        output.add_attachment("font.ttf", "application/x-truetype-font", b"FONT" * 100)
        output.add_attachment("cover.jpg", "image/jpeg", picture_file(".jpg"))
        for video in videos:
            for t in range(5):
                image = np.full((48, 64, 3), 20 * t, np.uint8)
                output.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            output.mux(video.encode())
    return path


@pytest.mark.parametrize("way", ["copy", "remux"])
def test_fonts_covers_and_other_videos_are_kept(tmp_path, album, way):
    notes = [plan.note for plan in plans_of(album, ".mkv") if plan.note]
    assert notes == ["video stream 1 (h264): copied, not restored"]
    if way == "copy":
        copy(album, tmp_path / "out.mkv")
    else:
        remux(VideoSource(album), tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        kinds = [stream.type for stream in container.streams]
        assert kinds == ["video", "video", "attachment", "video"]
        font: Any = container.streams[2]
        assert (font.metadata["filename"], bytes(font.data)) == ("font.ttf", b"FONT" * 100)
        cover = next(bytes(p) for p in container.demux(container.streams[3]) if p.size)
        assert cover == picture_file(".jpg")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert sum(1 for _ in container.decode(video=1)) == 5


def test_a_cover_goes_into_mp4_and_a_font_is_named(tmp_path, album):
    notes = [plan.note for plan in plans_of(album, ".mp4") if plan.note]
    assert notes[1:] == ["attachment stream 2 (font.ttf): left out: it does not fit into .mp4"]
    copy(album, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        covers = [s for s in container.streams.video if s.disposition & Disposition.attached_pic]
        assert next(bytes(p) for p in container.demux(covers[0]) if p.size) == picture_file(".jpg")


@pytest.mark.parametrize("suffix", [".mov", ".mp4"])
@pytest.mark.parametrize("way", ["copy", "remux"])
def test_what_a_phone_notes_is_kept(tmp_path, suffix, way):
    source = tmp_path / "in.mov"
    with av.open(str(source), "w", options={"movflags": "use_metadata_tags"}) as output:
        video: Any = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.metadata["timecode"] = "01:02:03:04"
        output.metadata.update({**APPLE, "creation_time": "2020-05-01T10:00:00Z", "title": "T"})
        for t in range(5):
            image = np.full((48, 64, 3), 20 * t, np.uint8)
            output.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(video.encode())
    assert [plan.note for plan in plans_of(source, suffix) if plan.note] == []
    out = tmp_path / f"out{suffix}"
    if way == "copy":
        copy(source, out)
    else:
        remux(VideoSource(source), out)
    with av.open(str(out)) as container:
        tags = container.metadata
        assert {k: tags[k] for k in APPLE} == APPLE
        assert tags["title"] == "T"
        assert tags["creation_time"].startswith("2020-05-01T10:00:00")
        assert container.streams.video[0].metadata["timecode"] == "01:02:03:04"


def test_sound_that_nothing_decodes_is_refused_with_the_way_on(tmp_path):
    """Its codec id, of the same length, is one that no decoder has."""
    from keep.inference.video.preflight import streams
    from keep.inference.video.settings import Settings
    from keep.utils.errors import UserError

    source = tmp_path / "in.mkv"
    with_sound(source, "pcm_s16le")
    data = source.read_bytes().replace(b"A_PCM/INT/LIT", b"A_UNKNOWN/PCM")
    source.write_bytes(data)
    video = VideoSource(source)
    with pytest.raises(UserError, match="--without-sound goes on without it"):
        streams(video, tmp_path / "out.mp4", Settings())
    (note,) = streams(video, tmp_path / "out.mp4", Settings(without_sound=True))
    assert "left out" in note
    copy(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
