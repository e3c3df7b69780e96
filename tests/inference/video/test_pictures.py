"""What pixels hold beyond 8-bit RGB is kept, or said before pass 1: HDR, fields, grey, alpha, more bits."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.filter import Graph
from drawn_faces import BRIGHT, DARK, GREEN, RED, Discs, Recorder, draw

from keep.data.mux import VideoSource
from keep.data.mux.hdr import from_display
from keep.inference.video import Settings, Summary, Tools, restore_video

FACES = [(RED, 60, 60, 20), (GREEN, 170, 60, 25)]
MASTERING = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"


class Tinted(Recorder):
    """A network that paints everything in one colour."""

    def begin(self) -> Any:
        def restore(crops: np.ndarray) -> np.ndarray:
            self._clips.append([crops])
            return np.full_like(crops, (180, 120, 90))

        return restore


def encode(path: Path, pictures: list[Any], codec: str, form: str, tags: tuple[int, ...] = (), **options: str) -> Path:
    """A video of PyAV frames, with tags (matrix, primaries, transfer, range)."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, form
        if tags:
            context = stream.codec_context
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags
        for i, picture in enumerate(pictures):
            picture = picture.reformat(format=form, dst_colorspace=tags[0] if tags else None)
            if tags:
                picture.colorspace, picture.color_range = tags[0], tags[3]
            picture.pts = i
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
    return path


def hdr(path: Path, transfer: str, light: str = "") -> Path:
    """Two discs and a grey ramp that reaches to 75 % of the signal, in HEVC with 10 bits."""
    image = from_display(draw(FACES), transfer)  # type: ignore[arg-type]
    image[100:] = (np.linspace(0, 0.75, 240) * 65535)[None, :, None]
    params = "log-level=error" + (f":hdr10=1:{light}" if light else "")
    tags = (9, 9, {"pq": 16, "hlg": 18}[transfer], 1)
    frames = [av.VideoFrame.from_ndarray(image, format="rgb48le") for _ in range(8)]
    return encode(path, frames, "libx265", "yuv420p10le", tags, crf="4", **{"x265-params": params})


def run(source: Path, out: Path, network: Any = None, **settings: Any) -> tuple[Summary, list[str]]:
    lines: list[str] = []
    tools = Tools(network or Recorder(64), Discs())
    return restore_video(source, out, tools, Settings(**{"crf": 4, **settings}), announce=lines.append), lines


def first(path: Path) -> Any:
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def tags_of(path: Path) -> tuple[Any, ...]:
    frame = first(path)
    return (frame.format.name, frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)


def deep_of(path: Path) -> np.ndarray:
    return np.stack([f.deep() if f.deep else f.image for f in VideoSource(path)]).astype(int)


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_hdr_stays_hdr(tmp_path, transfer):
    """The network sees natural colours; a face that it leaves alone comes back as it was; tags and light are kept."""
    light = MASTERING if transfer == "pq" else ""
    source = hdr(tmp_path / "in.mkv", transfer, light)
    network = Recorder(64)
    summary, lines = run(source, tmp_path / "out.mp4", network)
    assert (summary.frames, summary.tracks) == (8, 2)
    assert lines == []
    assert tags_of(tmp_path / "out.mp4") == tags_of(source)
    assert VideoSource(tmp_path / "out.mp4").light == light
    seen = {tuple(int(v) for v in face[32, 32]) for clip in network.clips for face in clip[0]}
    for colour in (RED, GREEN):
        assert min(np.abs(np.subtract(colour, one)).max() for one in seen) < 12, "as displayed"
    before, after = deep_of(source), deep_of(tmp_path / "out.mp4")
    assert np.abs(after - before)[:, 45:75, 50:70].mean() < 0.01 * 65535, "the face"
    assert np.abs(after - before)[:, 104:].mean() < 0.003 * 65535, "the ramp"


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_restored_hdr_faces_have_the_networks_colour(tmp_path, transfer):
    source = hdr(tmp_path / "in.mkv", transfer)
    run(source, tmp_path / "out.mkv", Tinted(64))
    shown = next(iter(VideoSource(tmp_path / "out.mkv"))).image
    assert np.abs(shown[60, 60].astype(int) - (180, 120, 90)).max() < 8


def test_hdr_with_a_codec_that_cannot(tmp_path):
    source = hdr(tmp_path / "in.mkv", "pq", MASTERING)
    _, lines = run(source, tmp_path / "out.mp4", codec="h264")
    assert lines == ["HDR (PQ): tone-mapped to SDR, 8 bits a channel; --codec h265 keeps it"]
    assert tags_of(tmp_path / "out.mp4") == ("yuv420p", 1, 1, 1, 1)
    shown, wanted = next(iter(VideoSource(tmp_path / "out.mp4"))).image, draw(FACES)
    assert np.abs(shown[:98].astype(int) - wanted[:98]).mean() < 3
    _, lines = run(source, tmp_path / "frames", frames=True)
    assert lines == ["HDR (PQ): tone-mapped to SDR, 8 bits a channel"]
    _, lines = run(source, tmp_path / "out.mkv", codec="ffv1")
    assert lines == ["HDR: mastering display and light level are not stored with ffv1"]
    assert first(tmp_path / "out.mkv").color_trc == 16


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_ten_bits_stay_ten_bits(tmp_path, suffix):
    """A ramp finer than 8 bits, beside a face."""
    image = draw(FACES).astype(np.uint16) * 257
    image[100:] = np.linspace(20000, 21000, 240)[None, :, None]
    frames = [av.VideoFrame.from_ndarray(image, format="rgb48le") for _ in range(8)]
    source = encode(
        tmp_path / "in.mkv", frames, "libx265", "yuv420p10le", (), crf="1", **{"x265-params": "log-level=error"}
    )
    _, lines = run(source, tmp_path / f"out{suffix}", crf=1)
    assert lines == []
    assert first(tmp_path / f"out{suffix}").format.name == "yuv420p10le"
    before, after = deep_of(source)[:, 104:], deep_of(tmp_path / f"out{suffix}")[:, 104:]
    assert len(np.unique(after[0, :, :, 1])) > 10
    assert np.abs(after - before).mean() < 64
    _, lines = run(source, tmp_path / "eight.mp4", codec="h264")
    assert lines == ["10 bits a channel: written with 8 (--codec h265 keeps 10, ffv1 all)"]
    _, lines = run(source, tmp_path / "all.mkv", codec="ffv1")
    assert lines == []
    assert np.abs(deep_of(tmp_path / "all.mkv")[:, 104:] - before).max() < 64, "lossless"


def test_alpha_is_kept_or_named(tmp_path):
    image = np.dstack([draw(FACES), np.full((120, 240), 255, np.uint8)])
    image[100:, :, 3] = 77
    frames = [av.VideoFrame.from_ndarray(image, format="rgba") for _ in range(8)]
    source = encode(tmp_path / "in.mkv", frames, "ffv1", "bgra")
    _, lines = run(source, tmp_path / "out.mkv", Tinted(64), codec="ffv1")
    assert lines == []
    after = deep_of(tmp_path / "out.mkv")
    assert after.shape == (8, 120, 240, 4)
    assert np.array_equal(after[..., 3], deep_of(source)[..., 3])
    assert np.abs(after[0, 60, 60, :3] - (180, 120, 90)).max() < 3
    _, lines = run(source, tmp_path / "out.mp4")
    assert lines == [
        "the alpha channel is left out (--codec ffv1 or --frames keeps it)",
        "chroma is stored for every fourth pixel, 4:2:0 (--codec ffv1 keeps all)",
    ]


@pytest.mark.parametrize(
    ("kind", "channels"), [(np.uint16, 3), (np.uint16, 4), (np.uint8, 4), (np.uint8, 1), (np.uint16, 1)]
)
def test_png_files_keep_bits_alpha_and_grey(tmp_path, kind, channels):
    most = np.iinfo(kind).max
    for name in ("in", "new"):
        (tmp_path / name).mkdir()
    image = (draw(FACES)[..., ::-1].astype(float) / 255 * most).round().astype(kind)
    if channels == 1:
        image = (draw([((200, 200, 200), 60, 60, 20)])[..., 0].astype(float) / 255 * most).round().astype(kind)
    if channels == 4:
        image = np.dstack([image, np.full(image.shape[:2], most // 3, kind)])
    for i in range(8):
        cv2.imwrite(str(tmp_path / "in" / f"{i}.png"), image)

    class Bright(Discs):
        def __call__(self, frame: np.ndarray) -> Any:
            return (
                super().__call__(np.where(frame > 150, np.array(RED, np.uint8), np.array(DARK, np.uint8)))
                if channels == 1
                else super().__call__(frame)
            )

    summary = restore_video(tmp_path / "in", tmp_path / "out", Tools(Tinted(64), Bright()), announce=lambda line: None)
    assert summary.tracks > 0
    out: Any = cv2.imread(str(tmp_path / "out" / "3.png"), cv2.IMREAD_UNCHANGED)
    assert out.dtype == kind
    assert out.shape == image.shape
    assert np.array_equal(out[100:], image[100:]), "not a face: untouched"
    if channels == 4:
        assert np.array_equal(out[..., 3], image[..., 3])
    assert np.abs(out[60, 60].astype(int) - image[60, 60]).max() > 10 * (most // 255), "the face is another"


@pytest.mark.parametrize(("codec", "form"), [("h265", "gray"), ("ffv1", "gray"), ("h264", "yuv420p")])
def test_grey_stays_grey(tmp_path, codec, form):
    ramp = np.broadcast_to(np.arange(240, dtype=np.uint8), (20, 240))
    image = np.concatenate([draw([((200, 200, 200), 60, 60, 20)])[:100, :, 0], ramp])
    frames = [av.VideoFrame.from_ndarray(image, format="gray") for _ in range(8)]
    source = encode(tmp_path / "in.mkv", frames, "ffv1", "gray")

    class Bright(Discs):
        def __call__(self, frame: np.ndarray) -> Any:
            return super().__call__(
                np.where((frame > 190) & (frame < 210), np.array(RED, np.uint8), np.array(DARK, np.uint8))
            )

    tools = Tools(Tinted(64), Bright())
    summary = restore_video(
        source, tmp_path / "out.mkv", tools, Settings(codec=codec, crf=1), announce=lambda line: None
    )
    assert summary.tracks == 1
    frame = first(tmp_path / "out.mkv")
    assert frame.format.name == form
    shown = next(iter(VideoSource(tmp_path / "out.mkv"))).image.astype(int)
    assert np.ptp(shown, axis=-1).max() == 0, "no colour"
    assert np.abs(shown[104:, :, 0] - ramp[:16]).mean() < 2
    assert abs(int(shown[60, 60, 0]) - 135) < 6, "the network's luma"


@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_black_and_white_film_gains_no_colour(tmp_path, noise):
    """4:2:0 video without chroma up to coding noise: the network's luma alone is taken; a coloured shot keeps it."""
    rng = np.random.default_rng(0)
    clip = []
    for t in range(20):
        gray = np.repeat(cv2.cvtColor(draw(FACES), cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
        image = draw(FACES, BRIGHT) if t >= 10 else gray
        grain = cv2.GaussianBlur(rng.normal(0, 12 * noise, (120, 240, 3)), (0, 0), 2)
        clip.append(av.VideoFrame.from_ndarray((image + grain).clip(0, 255).astype(np.uint8), format="rgb24"))
    source = encode(tmp_path / "in.mkv", clip, "libx264", "yuv420p", crf="20")

    class Placed(Discs):
        def __call__(self, frame: np.ndarray) -> Any:
            return super().__call__(draw(FACES))

    summary = restore_video(
        source, tmp_path / "out.mkv", Tools(Tinted(64), Placed()), Settings(crf=4), announce=lambda line: None
    )
    assert summary.shots == 2
    shown = np.stack([f.image for f in VideoSource(tmp_path / "out.mkv")]).astype(int)
    colour = np.ptp(shown[:, 55:65, 55:65].mean((1, 2)), axis=-1)
    assert colour[:10].max() < 3
    assert colour[10:].min() > 60


PALE = (131, 127, 126)


@pytest.mark.parametrize(
    ("face", "other", "ground", "coloured"),
    [
        (PALE, PALE, (60, 110, 60), True),  # pale faces in a coloured shot
        (PALE, PALE, (90, 90, 90), False),  # coding noise
        (PALE, GREEN, (90, 90, 90), True),  # one face is all the colour of the shot
        ((128, 128, 128), GREEN, (60, 110, 60), False),  # a black and white picture within a coloured one
    ],
)
def test_whether_a_shot_is_black_and_white(tmp_path, face, other, ground, coloured):
    """It is judged by the frames and all faces of a shot, not by one face; a face without any colour stays so."""
    image = np.full((120, 240, 3), ground, np.uint8)
    image[20:100, 20:100] = np.repeat(image[:1, :1].mean(-1, keepdims=True), 3, -1)  # around the first face
    for colour, (_, x, y, radius) in zip((face, other), FACES, strict=True):
        cv2.circle(image, (x, y), radius, colour, -1)
    source = encode(
        tmp_path / "in.mkv", [av.VideoFrame.from_ndarray(image, format="rgb24") for _ in range(8)], "ffv1", "bgr0"
    )

    class Placed(Discs):
        def __call__(self, frame: np.ndarray) -> Any:
            return super().__call__(draw(FACES))

    tools = Tools(Tinted(64), Placed())
    restore_video(source, tmp_path / "out.mkv", tools, Settings(codec="ffv1"), announce=lambda line: None)
    shown = next(iter(VideoSource(tmp_path / "out.mkv"))).image[60, 60].astype(int)
    assert (np.ptp(shown) > 60) == coloured


def interlaced(
    path: Path,
    codec: str,
    top_first: bool,
    form: str = "yuv420p",
    size: tuple[int, int] = (144, 240),
    times: Sequence[int] = range(12),
) -> Path:
    """A disc, and a bar below it, that move 4 px from field to field. ``times``: of the frames, in 1/25 s."""
    height, width = size
    graph = Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("setfield", "tff" if top_first else "bff"), graph.add("buffersink"))
    graph.configure()
    options = {"flags": "+ildct+ilme", "crf": "6", "b": "9000000"}
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=25, options=options if codec != "dvvideo" else {})
        stream.width, stream.height, stream.pix_fmt = width, height, form
        for t in times:
            image = np.empty((*size, 3), np.uint8)
            for k, lines in enumerate((slice(0, None, 2), slice(1, None, 2))[:: 1 if top_first else -1]):
                x = 40 + 4 * (2 * t + k)
                field = draw([(RED, x, 60, 20)], size=size)
                field[100:140, x : x + 8] = (90, 90, 220)
                image[lines] = field[lines]
            picture: Any = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = t, Fraction(1, 25)
            graph.push(picture)
            output.mux(stream.encode(graph.pull()))
        output.mux(stream.encode())
    return path


def combs(path: Path) -> float:
    """Mean difference of neighbouring lines, around the bar."""
    images = np.stack([f.image for f in VideoSource(path)])[2:-2, 104:136].astype(float)
    return float(np.abs(np.diff(images, axis=1)).mean())


@pytest.mark.parametrize(
    ("name", "codec", "top_first", "form", "size"),
    [
        ("tff.mkv", "libx264", True, "yuv420p", (144, 240)),
        ("bff.mkv", "libx264", False, "yuv420p", (144, 240)),
        ("mpeg2.ts", "mpeg2video", True, "yuv420p", (144, 240)),
        ("dv.avi", "dvvideo", False, "yuv420p", (576, 720)),
    ],
)
def test_interlaced_video_is_deinterlaced(tmp_path, name, codec, top_first, form, size):
    source = interlaced(tmp_path / name, codec, top_first, form, size)
    summary, lines = run(source, tmp_path / "out.mp4", Recorder(64))
    assert (summary.frames, summary.tracks) == (12, 1)
    assert lines == [
        "interlaced: deinterlaced by bwdif, written progressive, 25 frames a second (--deinterlace, --double-rate)"
    ]
    assert lines[0] in summary.preflight
    assert combs(tmp_path / "out.mp4") < 0.3 * combs(source)
    assert not first(tmp_path / "out.mp4").interlaced_frame
    times = [float(f.pts * v.time_base) for v in (VideoSource(tmp_path / "out.mp4"),) for f in v]
    np.testing.assert_allclose(times, np.arange(12) / 25, atol=1e-3)
    if codec == "libx264":
        summary, lines = run(source, tmp_path / "double.mp4", Recorder(64), double_rate=True)
        out = VideoSource(tmp_path / "double.mp4")
        frames = list(out)
        assert len(frames) == 24
        assert "50 frames a second" in lines[0]
        assert not summary.broken
        np.testing.assert_allclose([float(f.pts * out.time_base) for f in frames], np.arange(24) / 50, atol=1e-3)
        places = [float(np.nonzero(f.image[120, :, 2] > 130)[0].mean()) for f in frames]
        np.testing.assert_allclose(np.diff(places), 4, atol=1)  # motion is steady: the order of the fields is right


def test_fields_can_be_kept_or_ignored(tmp_path):
    for top_first in (True, False):
        source = interlaced(tmp_path / f"{top_first}.mkv", "libx264", top_first)
        network = Recorder(64)
        _, lines = run(source, tmp_path / "kept.mkv", network, deinterlace="keep")
        assert lines == [
            "interlaced: it stays interlaced; faces are restored in progressive frames, one for both fields"
        ]
        assert first(tmp_path / "kept.mkv").interlaced_frame
        again = list(VideoSource(tmp_path / "kept.mkv", "auto", double_rate=True))
        places = [float(np.nonzero(f.image[120, :, 2] > 130)[0].mean()) for f in again]
        assert len(again) == 24
        assert np.diff(places)[2:-2].min() > 0, "the order of the fields is right"
        assert combs(tmp_path / "kept.mkv") > 0.8 * combs(source)
    _, lines = run(source, tmp_path / "off.mkv", deinterlace="off")
    assert lines == []
    assert combs(tmp_path / "off.mkv") > 0.8 * combs(source)


def test_sharpness_is_measured_for_the_networks_size(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr("keep.faces.measure.Measures.add", lambda self, image, face, size: sizes.append(size))
    frames = [av.VideoFrame.from_ndarray(draw(FACES), format="rgb24") for _ in range(8)]
    run(encode(tmp_path / "in.mkv", frames, "ffv1", "bgr0"), tmp_path / "out.mkv", Recorder(192))
    assert set(sizes) == {192}


@pytest.mark.parametrize(("strength", "auto"), [(0.0, False), (0.0, True), (0.5, True), (1.0, True)])
def test_sharp_faces_are_named_and_left_or_blended(tmp_path, monkeypatch, strength, auto):
    monkeypatch.setattr("keep.faces.measure.Measures.strength", strength)
    frames = [av.VideoFrame.from_ndarray(draw(FACES), format="rgb24") for _ in range(8)]
    source = encode(tmp_path / "in.mkv", frames, "ffv1", "bgr0")
    summary, _ = run(source, tmp_path / "out.mkv", Tinted(64), codec="ffv1", auto=auto)
    wanted = strength if auto else 1.0
    shown = next(iter(VideoSource(tmp_path / "out.mkv"))).image[60, 60].astype(int)
    expected = wanted * np.array((180, 120, 90)) + (1 - wanted) * np.array(RED)
    assert np.abs(shown - expected).max() < 3
    assert summary.tracks == (0 if auto and not strength else 2)
    kept = "tracks of sharp faces kept as in the input"
    notes = {
        (0.0, False): "2 tracks of faces that are sharp already: restored, they may look worse (--auto leaves 2",
        (0.0, True): f"--auto: 2 {kept}, 0 blended with it",
        (0.5, True): f"--auto: 0 {kept}, 2 blended with it",
    }
    found = [line for line in summary.notes if "sharp" in line]
    assert len(found) == ((strength, auto) in notes)
    assert all(line.startswith(notes[strength, auto]) for line in found)


@pytest.mark.parametrize("auto", [False, True])
def test_faces_that_are_left_are_not_named_as_enlarged(tmp_path, monkeypatch, auto):
    monkeypatch.setattr("keep.faces.measure.Measures.strength", 0.0)
    frames = [av.VideoFrame.from_ndarray(draw(FACES), format="rgb24") for _ in range(8)]
    source = encode(tmp_path / "in.mkv", frames, "ffv1", "bgr0")
    summary, _ = run(source, tmp_path / "out.mkv", Recorder(32), auto=auto)
    assert any("enlarged" in line for line in summary.notes) == (not auto)


def test_second_fields_do_not_move_into_gaps(tmp_path):
    """With a frame for each field, the second one follows half a frame later, also where frames were dropped."""
    source = interlaced(tmp_path / "in.mkv", "libx264", True, "yuv420p", (144, 240), times=[0, 1, 2, 5, 6, 9, 10, 11])
    out = list(VideoSource(source, "auto", double_rate=True))
    base = VideoSource(source, "auto", double_rate=True).time_base
    expected = [t + half for t in (0, 1, 2, 5, 6, 9, 10, 11) for half in (0, 0.5)]
    np.testing.assert_allclose([float(f.pts * base) * 25 for f in out], expected, atol=0.05)


def test_a_copy_does_not_name_what_it_keeps(tmp_path):
    """Before pass 1 nobody knows that no face will be found; the summary of the copy says what is true of it."""
    image = np.full((120, 240, 3), 90, np.uint8)
    deep = av.VideoFrame.from_ndarray(from_display(image, "hlg"), format="rgb48le")
    options = {"x265-params": "log-level=error"}
    source = encode(tmp_path / "in.mkv", [deep] * 6, "libx265", "yuv420p10le", (9, 9, 18, 1), **options)
    summary, lines = run(source, tmp_path / "out.mkv", codec="h264")
    assert lines == ["HDR (HLG): tone-mapped to SDR, 8 bits a channel; --codec h265 keeps it"]
    assert summary.notes == ["no face was found: the content is unchanged, the file is copied"]
    assert summary.preflight == []
