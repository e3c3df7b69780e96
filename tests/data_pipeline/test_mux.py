"""Streaming in, streaming out: times, tags and the other streams are kept; damage is counted; files appear whole."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from keep.data.mux import Colours, FrameFolder, FrameWriter, VideoSource, VideoWriter, claim, list_images, remux
from keep.data.video_io import read_video
from keep.errors import UserError

TIMES = [0, 40, 80, 200, 233, 300, 520, 560, 600, 680, 690, 720]  # ms: a variable frame rate
SUBTITLES = "1\n00:00:00,100 --> 00:00:00,400\nfirst\n\n2\n00:00:00,500 --> 00:00:00,700\nsecond\n"


def make(
    path: Path,
    frames: np.ndarray,
    times: list[int] | None = None,
    audio: bool = False,
    subtitles: str = "",
    rotation: int = 0,
    colours: tuple[int, int, int, int] | None = None,
    start: int = 0,
    **options: str,
) -> Path:
    """A video of ``frames`` at ``times`` (ms; every 40 by default) from ``start``, with what is asked for."""
    movflags = options.pop("movflags", "")
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as output:
        video: Any = output.add_stream("libx264", rate=25, options={"crf": "12", **options})
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        if colours:
            context = video.codec_context
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = colours
        if rotation:
            video.set_display_rotation(rotation)
        sound: Any = output.add_stream("aac", rate=16000, layout="mono") if audio else None
        text = None
        if subtitles:
            srt = av.open(subtitles)
            text = output.add_stream_from_template(srt.streams.subtitles[0])
            text.metadata["language"] = "swe"
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if colours:
                frame = frame.reformat(format="yuv420p", dst_colorspace=colours[0], dst_color_range=colours[3])
            frame.pts, frame.time_base = start + (times[i] if times else 40 * i), Fraction(1, 1000)
            output.mux(video.encode(frame))
        output.mux(video.encode())
        if sound is not None:
            for i in range(14):
                wave = np.sin(np.arange(1024 * i, 1024 * (i + 1)) / 8)[None].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                frame.rate, frame.pts = 16000, start * 16 + 1024 * i
                output.mux(sound.encode(frame))
            output.mux(sound.encode())
        if text is not None:
            for packet in srt.demux():
                if packet.size:
                    packet.stream = text
                    output.mux(packet)
            srt.close()
    return path


def copy(source: Path, target: Path, **options: Any) -> VideoWriter:
    """``source`` decoded and written again."""
    video = VideoSource(source)
    with VideoWriter(target, video, (video.height, video.width), **options) as writer:
        for frame in video:
            writer.write(frame.image, frame)
    return writer


def images_of(path: Path) -> np.ndarray:
    return np.stack([frame.image for frame in VideoSource(path)]).astype(int)


def times_of(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        frames: Any = container.decode(video=0)
        return [frame.pts * frame.time_base for frame in frames]


def packets_of(path: Path, kind: str) -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [(bytes(p), p.pts * p.time_base) for p in container.demux(stream) if p.size]


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "h264"), (".mkv", "h264"), (".mp4", "h265"), (".mkv", "ffv1")])
def test_frames_and_their_times_are_kept(tmp_path, texture, suffix, codec):
    source = make(tmp_path / "in.mp4", texture(12), TIMES)
    copy(source, tmp_path / f"out{suffix}", codec=codec, crf=8)
    times = times_of(tmp_path / f"out{suffix}")
    np.testing.assert_allclose([float(t) for t in times], [t / 1000 for t in TIMES], atol=1e-3)
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert container.streams.video[0].codec_context.name == {"h265": "hevc"}.get(codec, codec)
    before, after = images_of(source), images_of(tmp_path / f"out{suffix}")
    assert after.shape == before.shape
    assert np.abs(after - before).mean() < (1e-9 if codec == "ffv1" else 4)  # hard-edged colours


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_videos_of_a_few_frames(tmp_path, texture, codec, count):
    copy(make(tmp_path / "in.mp4", texture(count)), tmp_path / "out.mp4", codec=codec)
    np.testing.assert_allclose([float(t) for t in times_of(tmp_path / "out.mp4")], np.arange(count) / 25, atol=1e-3)


def test_the_duration_is_kept(tmp_path, texture):
    for times in (None, TIMES):
        source = make(tmp_path / "in.mp4", texture(12), times)
        copy(source, tmp_path / "out.mp4")
        video = VideoSource(source)
        last = list(video)[-1]
        with av.open(str(tmp_path / "out.mp4")) as container:
            stream: Any = container.streams.video[0]
            assert stream.frames == 12
            seconds = float(stream.duration * stream.time_base)
        assert seconds == pytest.approx(float((last.pts + last.duration) * video.time_base), abs=0.001)
        assert times or seconds == pytest.approx(0.48, abs=0.001)


def test_audio_and_subtitles_are_copied_bit_for_bit(tmp_path, texture):
    (tmp_path / "s.srt").write_text(SUBTITLES)
    source = make(tmp_path / "in.mkv", texture(25), audio=True, subtitles=str(tmp_path / "s.srt"))
    writer = copy(source, tmp_path / "out.mkv")
    assert not writer.left_out
    for kind in ("audio", "subtitles"):
        given, kept = packets_of(source, kind), packets_of(tmp_path / "out.mkv", kind)
        assert given
        assert [data for data, _ in kept] == [data for data, _ in given]
        np.testing.assert_allclose([float(t) for _, t in kept], [float(t) for _, t in given], atol=2e-3)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.subtitles[0].language == "swe"
        assert container.streams.subtitles[0].codec_context.name in ("subrip", "srt")


def test_what_does_not_fit_the_container_is_named(tmp_path, texture):
    (tmp_path / "s.srt").write_text(SUBTITLES)
    source = make(tmp_path / "in.mkv", texture(12), audio=True, subtitles=str(tmp_path / "s.srt"))
    writer = copy(source, tmp_path / "out.mp4")
    (left_out,) = writer.left_out
    assert left_out.startswith("subtitle stream 2")
    assert left_out.endswith("does not fit into .mp4")
    assert [data for data, _ in packets_of(tmp_path / "out.mp4", "audio")] == [
        data for data, _ in packets_of(source, "audio")
    ]


def test_a_late_start_keeps_sound_and_picture_together(tmp_path, texture):
    source = make(tmp_path / "in.mkv", texture(12), audio=True, start=1400)
    copy(source, tmp_path / "out.mkv")
    (_, sound), picture = packets_of(tmp_path / "out.mkv", "audio")[0], times_of(tmp_path / "out.mkv")[0]
    (_, sound_before), picture_before = packets_of(source, "audio")[0], times_of(source)[0]
    assert float(picture) < 0.1
    assert float(picture - sound) == pytest.approx(float(picture_before - sound_before), abs=2e-3)


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_rotation_is_kept(tmp_path, texture, angle):
    source = make(tmp_path / "in.mp4", texture(3), rotation=angle)
    video = VideoSource(source)
    assert (video.height, video.width) == read_video(source).shape[1:3]
    copy(source, tmp_path / "out.mp4", crf=5)
    with av.open(str(source)) as given, av.open(str(tmp_path / "out.mp4")) as kept:
        a, b = next(given.decode(video=0)), next(kept.decode(video=0))
        assert a.rotation == b.rotation != 0
        assert (a.width, a.height) == (b.width, b.height)
    difference = images_of(source) - images_of(tmp_path / "out.mp4")
    assert np.abs(difference).mean() < 4


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


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("suffix", [".mp4", ".MOV", ".mkv"])
def test_streams_go_into_another_container_bit_for_bit(tmp_path, texture, suffix, rotation):
    source = make(tmp_path / "in.mkv", texture(12), TIMES, audio=True, rotation=rotation, start=700, bf="2")
    out = tmp_path / f"out{suffix}"
    assert not remux(VideoSource(source), out)
    assert np.array_equal(images_of(out), images_of(source))
    assert VideoSource(out).rotation == VideoSource(source).rotation
    assert [data for data, _ in packets_of(out, "audio")] == [data for data, _ in packets_of(source, "audio")]
    times = [float(t) for t in times_of(out)]
    np.testing.assert_allclose(np.array(times) - times[0], np.array(TIMES) / 1000, atol=2e-3)
    with pytest.raises(UserError, match="does not take the pictures"):
        remux(VideoSource(source), tmp_path / "out.webm")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", out.name]


def test_the_shape_of_pixels(tmp_path, texture):
    """It is kept where the codec can, and told of where it cannot; of the upright frame it is the turned one's."""
    video: Any = VideoSource(make(tmp_path / "in.mp4", texture(3)))
    video.pixel_aspect = Fraction(4, 3)
    for codec in ("h264", "h265", "ffv1"):
        with VideoWriter(tmp_path / f"{codec}.mkv", video, (48, 64), codec) as writer:
            for frame in video:
                writer.write(frame.image, frame)
        kept = VideoSource(tmp_path / f"{codec}.mkv").display_aspect
        assert (kept == pytest.approx(4 / 3)) == (not writer.left_out), codec
        assert (codec == "ffv1") == bool(writer.left_out)
    with av.open(str(tmp_path / "turned.mp4"), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(90)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(texture(1)[0], format="rgb24")))
        output.mux(stream.encode())
    assert VideoSource(tmp_path / "turned.mp4").display_aspect == pytest.approx(3 / 4)


def test_odd_sides_are_padded(tmp_path, texture):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, image in enumerate(texture(3, 33, 47)):
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1])
    video = FrameFolder(folder)
    with VideoWriter(tmp_path / "out.mp4", video, (33, 47)) as writer:
        for frame in video:
            writer.write(frame.image, frame)
    assert read_video(tmp_path / "out.mp4").shape == (3, 34, 48, 3)


def test_avi_has_no_time_stamps_but_all_its_frames(tmp_path, texture, encode):
    source = encode(tmp_path / "in.avi", texture(20), bf="2", g="8")
    video = VideoSource(source)
    assert len(list(video)) == 20
    assert not video.lost
    copy(source, tmp_path / "out.mp4")
    np.testing.assert_allclose([float(t) for t in times_of(tmp_path / "out.mp4")], np.arange(20) / 25, atol=1e-3)


# --- damage -----------------------------------------------------------------------------------------------------


def test_a_truncated_mp4_gives_what_it_holds(tmp_path, texture):
    whole = make(tmp_path / "in.mp4", texture(60), movflags="faststart", g="10")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    video = VideoSource(cut)
    frames = list(video)
    assert 10 < len(frames) < 60
    assert video.lost == 60 - len(frames)
    assert np.array_equal(frames[9].image, images_of(whole)[9])


def test_a_truncated_mkv_gives_what_it_holds(tmp_path, texture):
    whole = make(tmp_path / "in.mkv", texture(60), g="10")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.5)])
    video = VideoSource(cut)
    count = len(list(video))
    assert 10 < count < 55
    assert video.lost == pytest.approx(60 - count, abs=2)


def test_damage_in_the_middle_is_passed_over(tmp_path, texture):
    whole = make(tmp_path / "in.mp4", texture(60), movflags="faststart", g="10")
    data = bytearray(whole.read_bytes())
    at = len(data) // 2
    data[at : at + 2000] = bytes(2000)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    video = VideoSource(broken)
    frames = list(video)
    assert len(frames) > 40
    assert video.lost + video.damaged > 0
    assert len(frames) + video.lost == 60
    assert len(list(video)) == len(frames), "both passes see the same frames"


def test_whole_files_are_not_called_damaged(tmp_path, texture, encode):
    names = {"a.mp4": {"bf": "3"}, "b.mkv": {"bf": "3"}, "c.ts": {"bf": "3"}, "d.avi": {"bf": "2"}}
    for name, options in names.items():
        video = VideoSource(encode(tmp_path / name, texture(30), **options))
        assert len(list(video)) == 30, name
        assert (video.lost, video.damaged) == (0, 0), name


def test_what_is_no_video(tmp_path, texture):
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    (tmp_path / "notes.txt").write_text("no video\n" * 99)
    cv2.imwrite(str(tmp_path / "photo.png"), texture(1)[0])
    whole = make(tmp_path / "in.mp4", texture(30))
    (tmp_path / "headless.mp4").write_bytes(whole.read_bytes()[:2000])
    for name in ("text.mp4", "notes.txt", "photo.png", "headless.mp4"):
        with pytest.raises(UserError, match=rf"{name}: not a video file"):
            VideoSource(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        VideoSource(tmp_path / "gone.mp4")


# --- whole or not at all ----------------------------------------------------------------------------------------


def test_nothing_is_left_when_the_work_fails(tmp_path, texture):
    source = make(tmp_path / "in.mp4", texture(12), audio=True)
    video = VideoSource(source)

    def fail(writer: VideoWriter | FrameWriter) -> None:
        with writer:
            for frame in video:
                writer.write(frame.image, frame)
                if frame.index == 6:
                    raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError, match="the network failed"):
        fail(VideoWriter(tmp_path / "out.mp4", video, (48, 64)))
    with pytest.raises(RuntimeError, match="the network failed"):
        fail(FrameWriter(tmp_path / "frames"))
    with pytest.raises(UserError, match="there is no folder"):
        VideoWriter(tmp_path / "none" / "out.mp4", video, (48, 64))
    with pytest.raises(UserError, match=r"cannot write h264 into a \.xyz file"):
        VideoWriter(tmp_path / "out.xyz", video, (48, 64))
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead, alive = int(done.stdout), os.getppid()
    stale, foreign = tmp_path / f".out.{dead}.mp4", [tmp_path / f".out.{alive}.mp4", tmp_path / f".other.{dead}.mp4"]
    for file in (stale, *foreign):
        file.touch()
    folder = tmp_path / f".frames.{dead}"
    folder.mkdir()
    (folder / "0.png").touch()
    claim(tmp_path / "out.mp4")
    claim(tmp_path / "frames")
    assert not stale.exists()
    assert not folder.exists()
    assert all(file.exists() for file in foreign)


def test_what_cannot_be_written_is_known_at_once(tmp_path, texture):
    video = VideoSource(make(tmp_path / "in.mp4", texture(3)))
    VideoWriter(tmp_path / "out.mp4", video, (48, 64)).check()
    FrameWriter(tmp_path / "frames").check()
    with pytest.raises(UserError, match=r"cannot write h264 into a \.webm file"):
        VideoWriter(tmp_path / "out.webm", video, (48, 64)).check()
    with pytest.raises(UserError, match="cannot be written"):
        VideoWriter(tmp_path / "out.mp4", video, (48, 400_000)).check()
    with pytest.raises(UserError, match="the frame rate must be from"):
        FrameFolder(frames_in(tmp_path / "in"), float("inf"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "in.mp4"]


def frames_in(folder: Path) -> Path:
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.zeros((8, 8, 3)))
    return folder


def test_a_full_disk(tmp_path, texture):
    """A limit on the size of files stands in for it: writing fails in the same place."""
    make(tmp_path / "in.mp4", np.concatenate([texture(60, 256, 256, seed) for seed in range(2)]), crf="5")
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from keep.data.mux import VideoSource, VideoWriter
from keep.errors import UserError
video = VideoSource({str(tmp_path / "in.mp4")!r})
try:
    with VideoWriter({str(tmp_path / "out.mp4")!r}, video, (256, 256), crf=1) as writer:
        for frame in video:
            writer.write(frame.image, frame)
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "out.mp4: cannot be written: File too large" in done.stdout, done.stdout + done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


# --- folders of frames ------------------------------------------------------------------------------------------


def test_a_folder_of_frames(tmp_path, texture):
    folder, clip = tmp_path / "frames", texture(12)
    folder.mkdir()
    for i, image in enumerate(clip):
        cv2.imwrite(str(folder / f"f_{i}.png"), image[..., ::-1])
    (folder / "notes.txt").touch()
    assert [f.stem for f in list_images(folder)] == [f"f_{i}" for i in range(12)]
    video = FrameFolder(folder, 30)
    frames = list(video)
    assert np.array_equal(np.stack([f.image for f in frames]), clip)
    with FrameWriter(tmp_path / "out") as writer:
        for frame in frames:
            writer.write(frame.image, frame)
    assert np.array_equal(np.stack([f.image for f in FrameFolder(tmp_path / "out")]), clip)
    assert [f.name for f in list_images(tmp_path / "out")] == [f"f_{i}.png" for i in range(12)]
    with pytest.raises(UserError, match="is there already"):
        FrameWriter(tmp_path / "out")

    (folder / "f_3.png").write_bytes(b"broken")
    assert len(list(video)) == 11
    assert video.lost == 1
    cv2.imwrite(str(folder / "f_5.png"), np.zeros((8, 8, 3)))
    with pytest.raises(UserError, match=r"f_5\.png: is 8×8, the others 64×48"):
        list(video)
