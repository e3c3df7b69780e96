"""--confidence: a video of the expected error with the output's times, a record, hatching; what is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from drawn_faces import GREEN, RED, Discs, draw
from networks import tiny_file

from keep import restore
from keep.archs.confidence import ConfidenceHead
from keep.data.mux import WRITTEN, TimedFrame
from keep.data.video_io import read_video, write_video
from keep.inference.confidence import network_hash, path_of, save_confidence
from keep.inference.video.judged import FULL, HATCH, FaceRecord, error_frame, observed_share, overlay_frame
from keep.inference.video.network import Judged
from keep.inference.video.pipeline import RestoredFace, WaitingFrame

SIZE = 64


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    path = tiny_file(tmp_path_factory.mktemp("weights"))
    head = ConfidenceHead(width=4, layers=1).eval()
    save_confidence(head, {"type": "ConfidenceHead", "width": 4, "layers": 1}, path_of(path), network_hash(path), {})
    return str(path)


@pytest.fixture
def video(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("keep.inference.video.options.default_detector", Discs)
    path = tmp_path / "two.mp4"
    frames = np.stack([draw([(RED, 40 + t, 57, 18), (GREEN, 200 - t, 63, 18)]) for t in range(10)])
    write_video(path, frames, fps=24, crf=10)
    return path


def times(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def run(*arguments: Any) -> int:
    return restore.main([*map(str, arguments), "--detect-every", "1", "--device", "cpu"])


def face(error: float, confidence: float, matrix: np.ndarray | None = None) -> RestoredFace:
    blocks = np.full((SIZE // 8, SIZE // 8), 1, np.float32)
    crop = np.full((SIZE, SIZE, 3), 128, np.uint8)
    return RestoredFace(crop, matrix, crop, track=4, judged=Judged(error * blocks, error * blocks, confidence * blocks))


def waiting(*faces: RestoredFace) -> WaitingFrame:
    return WaitingFrame(TimedFrame(3, np.zeros((SIZE, SIZE, 3), np.uint8), 0, 1), list(faces))


def test_errors_become_colours_inside_the_face():
    image = np.full((SIZE, SIZE, 3), 200, np.uint8)
    dark, bright = (error_frame(image, waiting(face(error, 1)), 1)[36, 32] for error in (0, 2 * FULL))
    assert dark.max() < 10
    assert bright.min() > 100
    assert error_frame(image, waiting(face(0, 1)), 1)[0, 0].tolist() == [70, 70, 70], "dim where no face is"


def test_invented_faces_are_hatched_and_observed_ones_are_not():
    image = np.full((SIZE, SIZE, 3), 200, np.uint8)
    assert (overlay_frame(image, waiting(face(0, 0.9)), 1) == image).all()
    hatched = overlay_frame(image, waiting(face(0, 0.1)), 1)
    changed = (hatched != image).any(-1)
    assert 0.05 < changed.mean() < 0.5
    assert np.abs(hatched[changed].mean(0) - HATCH).max() < 60
    assert (image == 200).all(), "the output itself is not painted"
    half = np.array([[2.0, 0, 0], [0, 2.0, 0]])
    assert (overlay_frame(image, waiting(face(0, 0.1, half)), 1) != image).any(-1).sum() < changed.sum()


def test_deep_frames_are_shown_with_eight_bits():
    image = np.full((SIZE, SIZE, 3), 200 << 8, np.uint16)
    assert (overlay_frame(image, waiting(), 1) == 200).all()


def test_the_record_says_how_much_is_observed_and_warns():
    blocks = np.ones((8, 8), np.float32)
    assert observed_share(Judged(blocks, blocks, 0.9 * blocks)) == 1
    record = FaceRecord()
    record.add(waiting(face(3, 0.1, np.array([[2.0, 0, 0], [0, 2.0, 0]]))), 0.125)
    assert record.plain() == [
        {
            "track": 4, "observed": 0.0, "identity_warning": True,
            "frames": [{"frame": 3, "time": 0.125, "observed": 0.0, "error": 3.0, "size": 32.0}],
        }
    ]  # fmt: skip
    assert record.notes() == ["track 4: hardly anything of the face is observed; it may look like somebody else"]
    assert FaceRecord().notes() == []


def test_a_map_and_its_record(tmp_path, video, weights, capsys):
    output, chart = tmp_path / "restored.mp4", tmp_path / "map.mp4"
    assert run(video, "-o", output, "-w", weights, "--confidence", chart) == 0
    assert times(chart) == times(output)
    assert read_video(chart).shape == read_video(output).shape
    record = json.loads((tmp_path / "restored.confidence.json").read_text())
    for what, path in (("input", video), ("output", output), ("network", Path(weights))):
        assert record[what]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [face["track"] for face in record["faces"]] == [0, 1]
    assert [len(face["frames"]) for face in record["faces"]] == [10, 10]
    assert all(0 <= frame["observed"] <= 1 for face in record["faces"] for frame in face["frames"])
    assert record["meaning"]["interval_level"] == 0.9
    assert "neural network" in record["statement"]
    plain = tmp_path / "plain.mp4"
    assert run(video, "-o", plain, "-w", weights) == 0
    difference = np.abs(read_video(plain).astype(int) - read_video(output))
    assert difference.mean() < 1, "measuring changes nothing but the rounding of bfloat16"
    assert run(video, "-o", output, "-w", weights, "--confidence", chart) == 2, "exists already"
    capsys.readouterr()


def test_an_overlay_beside_the_output_and_the_input_back(tmp_path, video, weights):
    output = tmp_path / "a.mp4"
    assert run(video, "-o", output, "-w", weights, "--confidence", "overlay", "--min-confidence", "1") == 0
    assert times(tmp_path / "a.confidence.mp4") == times(output)
    given, back = read_video(video).astype(int), read_video(output).astype(int)
    assert run(video, "-o", tmp_path / "b.mp4", "-w", weights) == 0
    full = read_video(tmp_path / "b.mp4").astype(int)
    assert np.abs(back - given).mean() < 0.5 * np.abs(full - given).mean()


def test_a_video_without_faces_has_an_empty_record(tmp_path, weights, monkeypatch):
    monkeypatch.setattr("keep.inference.video.options.default_detector", Discs)
    empty = tmp_path / "empty.mp4"
    write_video(empty, np.stack([draw([]) for _ in range(6)]), fps=24)
    assert run(empty, "-o", tmp_path / "out.mp4", "-w", weights, "--confidence", "map") == 0
    assert json.loads((tmp_path / "out.confidence.json").read_text())["faces"] == []
    assert len(times(tmp_path / "out.confidence.mp4")) == 6


@pytest.mark.parametrize("name", [*(f"out{suffix}" for suffix in sorted(WRITTEN)), "frames.webm"])
def test_the_map_is_what_its_suffix_says(tmp_path, video, weights, name):
    output, folder = tmp_path / name, name == "frames.webm"
    write_video(video, np.stack([draw([(RED, 60, 57, 18)])] * 5), fps=24)
    if folder:
        output.mkdir()
    options = ["--frames"] if folder else []
    assert run(video, "-o", output, "-w", weights, "--confidence", "map", "--compare", *options) == 0
    suffix = ".mkv" if folder else output.suffix
    stem = name if folder else output.stem
    start = {".mkv": b"matroska", ".mov": b"ftypqt", ".mp4": b"ftypisom", ".m4v": b"ftypM4V"}[suffix]
    for kind in ("confidence", "compare"):
        path = tmp_path / f"{stem}.{kind}{suffix}"
        with av.open(str(path)) as container:
            assert [s.codec_context.name for s in container.streams] == ["h264"]
            assert sum(1 for _ in container.decode(video=0)) == 5
        assert start in path.read_bytes()[:64], "the container"


@pytest.mark.parametrize("faces", [True, False])
def test_without_its_record_nothing_is_left(tmp_path, video, weights, monkeypatch, capsys, faces):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "out.confidence.json")

    if not faces:
        write_video(video, np.stack([draw([]) for _ in range(6)]), fps=24)
    monkeypatch.setattr("keep.inference.video.provenance.write_file", full)
    arguments = ("--confidence", "map", "--compare")
    assert run(video, "-o", tmp_path / "out.mp4", "-w", weights, *arguments) == 2
    assert "out.confidence.json: No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [video]


def test_what_is_refused(tmp_path, video, weights, capsys):
    output = tmp_path / "o.mp4"
    other = tmp_path / "w.safetensors"
    other.write_bytes(Path(weights).read_bytes())
    for arguments, reason in (
        (["-w", other, "--confidence", "map"], "no error model of these weights"),
        (["-w", other, "--min-confidence", "0.5"], "no error model of these weights"),
        (
            ["-w", weights, "--confidence", "mpa"],
            "mpa is not map, overlay or a video to write (.m4v, .mkv, .mov, .mp4)",
        ),
        (["-w", weights, "--confidence", "map.webm"], "map.webm is not map, overlay or a video to write"),
        (["-w", weights, "--confidence", video], "is the input itself"),
        (["-w", weights, "--confidence", output], "would be written for both"),
    ):
        assert run(video, "-o", output, *arguments) == 2
        assert reason in capsys.readouterr().err
        assert not output.exists()
