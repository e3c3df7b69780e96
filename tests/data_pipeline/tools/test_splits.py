import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from keep.config.reading import load
from keep.config.registry import DATASETS
from keep.config.schema import TestConfig
from keep.data.images import read_images
from keep.data.tools.splits import main
from keep.data.tools.splits_folder import LEVELS, Split, read_steps
from keep.data.video_io import read_video

LEVEL = """
data:
  test:
    degradation:
      - {type: GaussianBlur, sigma: [0.5, 1.5]}
      - {type: Downsample, scale: 2}
      - {type: GaussianNoise, sigma: [0, 10]}
      - {type: VideoCodec, codecs: [libx264], crf: [20, 40]}
"""


@pytest.fixture(scope="module")
def level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("levels") / "small.yml"
    path.write_text(LEVEL)
    return path


@pytest.fixture
def split(clips: Path, level: Path, tmp_path: Path):
    """(folder name, *more arguments) → (exit status, the split's folder)."""

    def make(name: str = "out", *more: str, root: Path = clips) -> tuple[int, Path]:
        arguments = [str(root), str(tmp_path / name), "--levels", str(level), "--size", "40", *more]
        return main(arguments), tmp_path / name / "small"

    return make


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def test_the_levels_are_table_a1() -> None:
    table = {
        "mild": ((2, 5), (0, 5), (18, 25)),
        "medium": ((5, 10), (5, 10), (25, 35)),
        "heavy": ((5, 10), (5, 10), (35, 45)),
    }
    for name, (blur, noise, crf) in table.items():
        steps = {s.type: s.options for s in read_steps(LEVELS / f"{name}.yml")}
        assert list(steps) == ["GaussianBlur", "Downsample", "GaussianNoise", "VideoCodec"]
        assert steps["GaussianBlur"]["sigma"] == blur
        assert steps["Downsample"]["scale"] == 4
        assert steps["GaussianNoise"]["sigma"] == noise
        assert steps["VideoCodec"]["crf"] == crf


def test_a_split_is_what_a_test_makes_on_reading(clips: Path, level: Path, split) -> None:
    status, folder = split()
    assert status == 0
    steps = tuple(s.build() for s in read_steps(level))
    dataset = DATASETS["VideoClips"](str(clips), size=40, degradation=steps)
    for i, clip in enumerate(dataset.clips):
        sample = dataset[0, i]
        frames = read_images(sorted((folder / clip.name).glob("*.png")))
        assert np.array_equal(frames, sample["lq"].permute(0, 2, 3, 1).numpy())
        assert manifest(folder)["clips"][clip.name]["degradation"] == json.loads(sample["degradation"])


def test_the_manifest_holds_the_parameters(split) -> None:
    _, folder = split("out", "--seed", "3")
    made = manifest(folder)
    assert made["seed"] == 3
    assert made["x264"].startswith("x264 - core ")
    for clip in made["clips"].values():
        blur, _, noise, codec = clip["degradation"]
        assert 0.5 <= blur["sigma"] <= 1.5
        assert 0 <= noise["sigma"] <= 10
        assert 20 <= codec["crf"] <= 40
        assert (codec["codec"], codec["preset"], codec["fps"]) == ("libx264", "medium", 25)
        assert (clip["frames"], clip["height"], clip["width"]) == (12, 20, 20)


@pytest.mark.parametrize("kind", ["frames", "h264"])
def test_same_seed_same_bytes(split, kind: str) -> None:
    one, two, other = (split(n, "--format", kind, "--seed", s)[1] for n, s in (("a", "1"), ("b", "1"), ("c", "2")))
    assert content(one) == content(two)
    assert content(one).keys() == content(other).keys()
    pixels = [{c["pixels_sha256"] for c in manifest(f)["clips"].values()} for f in (one, other)]
    assert not pixels[0] & pixels[1]


def test_the_stream_decodes_to_the_frames(split) -> None:
    frames, stream = split("a")[1], split("b", "--format", "h264")[1]
    for name, clip in manifest(frames)["clips"].items():
        decoded = read_video(stream / f"{name}.mp4")
        assert np.array_equal(decoded, read_images(sorted((frames / name).glob("*.png"))))
        assert clip["pixels_sha256"] == manifest(stream)["clips"][name]["pixels_sha256"]


@pytest.mark.parametrize("kind", ["frames", "h264"])
def test_keep_test_gives_the_same_scores_from_disk(clips: Path, level: Path, split, kind: str, tmp_path: Path) -> None:
    from keep.evaluation.benchmark import run_benchmark

    _, folder = split("out", "--format", kind)
    common = [f"root={tmp_path / 'results'}", "save.clips=0", "save.worst=0", "restorers.bicubic.scale=2"]
    options = yaml.safe_load((folder.parent / "test.yml").read_text(encoding="utf-8"))
    steps = yaml.safe_load(LEVEL)["data"]["test"]["degradation"]
    read = {"type": "VideoClips", "root": str(clips), "size": 40, "degradation": steps}
    (tmp_path / "read.yml").write_text(yaml.safe_dump({**options, "name": "read", "data": {"small": read}}))

    tables = []
    for path in (folder.parent / "test.yml", tmp_path / "read.yml"):
        config = load(path, common, TestConfig)
        assert run_benchmark(config) == 0
        tables.append((config.root / config.name / "frames.csv").read_text())
    assert tables[0] == tables[1]
    assert "disc1" in tables[0]


def test_the_paths_of_the_test_are_relative_to_the_present_folder(
    clips: Path, level: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(clips, tmp_path / "here/truth")
    monkeypatch.chdir(tmp_path / "here")
    for out in ("splits/of mine", "../elsewhere"):
        assert main(["truth", out, "--levels", str(level), "--size", "40"]) == 0
    options = yaml.safe_load(Path("splits/of mine/test.yml").read_text(encoding="utf-8"))
    small = options["data"]["small"]
    assert (small["gt"]["root"], small["lq"]) == ("truth", "splits/of mine/small")
    elsewhere = yaml.safe_load(Path("../elsewhere/test.yml").read_text(encoding="utf-8"))["data"]["small"]
    assert (elsewhere["gt"]["root"], elsewhere["lq"]) == ("truth", str(tmp_path / "elsewhere/small"))
    (tmp_path / "here").rename(tmp_path / "there")  # the folder moves, with all that is in it
    monkeypatch.chdir(tmp_path / "there")
    config = load(Path("splits/of mine/test.yml"), [], TestConfig)
    assert len(config.data["small"].build()) == 2


def test_an_interrupted_split_is_resumed(split, monkeypatch: pytest.MonkeyPatch) -> None:
    _, complete = split("complete")
    write = Split.write

    def stop_at_the_second(self, name, position, gt, rng) -> None:
        if position == 1:
            raise KeyboardInterrupt
        write(self, name, position, gt, rng)

    monkeypatch.setattr(Split, "write", stop_at_the_second)
    status, folder = split()
    assert status == 130
    assert not folder.exists()
    done = folder.parent / ".small.unfinished" / "disc0" / "00000.png"
    written = done.stat().st_mtime_ns

    monkeypatch.setattr(Split, "write", write)
    assert split()[0] == 0
    assert (folder / "disc0" / "00000.png").stat().st_mtime_ns == written
    assert content(folder) == content(complete)


def test_bad_clips_are_listed_and_nothing_is_published(split, clips: Path, tmp_path: Path, capsys) -> None:
    root = tmp_path / "gt"
    shutil.copytree(clips, root)
    (root / "broken.mp4").write_bytes(b"no video")
    status, folder = split(root=root)
    assert status == 1
    assert not folder.exists()
    message = capsys.readouterr().err
    assert "1 bad clips" in message
    assert "broken.mp4" in message

    (root / "broken.mp4").unlink()
    assert split(root=root)[0] == 0
    assert set(manifest(folder)["clips"]) == {"disc0", "disc1"}


def test_a_finished_split_is_checked(split, capsys) -> None:
    _, folder = split()
    before = content(folder)
    assert split()[0] == 0
    assert "checked" in capsys.readouterr().out
    assert content(folder) == before

    assert split("out", "--seed", "1")[0] == 2
    assert "another seed" in capsys.readouterr().err
    (folder / "disc1" / "00003.png").write_bytes(b"")
    assert split()[0] == 2
    assert "disc1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out"], "nowhere: no such folder"),
        (["{clips}", "{out}", "--levels", "wild"], "no such level; known: heavy"),
        (["{clips}", "{out}", "--seed", "-1"], "--seed: must be a whole number from 0"),
    ],
)
def test_mistakes_are_reported_in_one_line(arguments, message, clips: Path, tmp_path: Path, capsys) -> None:
    given = [a.format(clips=clips, out=tmp_path / "out") for a in arguments]
    assert main(given) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["frames", "h264"])
def test_a_size_that_the_steps_cannot_process_is_reported_before_the_work(split, kind: str, capsys) -> None:
    status, folder = split("out", "--size", "41", "--format", kind)
    assert status == 2
    assert not folder.parent.exists()
    message = capsys.readouterr().err
    assert message.startswith("error: --size 41, level small: Downsample: frames of 41x41 are not divisible by scale 2")
    assert len(message.splitlines()) == 1


def test_a_level_without_steps_is_reported(clips: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty.yml").write_text("name: x\n")
    assert main([str(clips), str(tmp_path / "out"), "--levels", str(tmp_path / "empty.yml")]) == 2
    assert "data.NAME.degradation" in capsys.readouterr().err
