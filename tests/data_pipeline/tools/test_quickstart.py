"""From a folder of videos to a table: ``keep-data quickstart`` and the four commands that it prints."""

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from keep.config.reading import load
from keep.config.schema import TestConfig, TrainConfig
from keep.data.packed import PackedClips
from keep.data.tools import quickstart_clips
from keep.data.tools.quickstart import main
from keep.data.tools.quickstart_options import RECIPES
from keep.data.tools.quickstart_parts import hold_out
from keep.data.video_io import probe, write_video
from keep.faces.align import TEMPLATE_512
from keep.faces.detect import Face
from keep.utils.errors import UserError

FOUND = TEMPLATE_512 / 512 * 60 + (40, 20)
"""Five points of the drawn face in a wide frame: the template at 60 pixels."""
SHORT = ["--size", "96", "--min-frames", "10", "--max-frames", "12"]


def video(path: Path, size: tuple[int, int] = (120, 160), seed: int = 0, frames: int = 12) -> Path:
    """Coloured shapes that move, with a bright corner: what the detector below takes for a face."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(40, 255, (8, 3)).tolist()
    spots = rng.uniform(0.2, 0.8, (8, 2))
    clip = np.full((frames, *size, 3), 90, np.uint8)
    for t, frame in enumerate(clip):
        for colour, spot in zip(colours, spots, strict=True):
            x, y = (spot * size[::-1] + t).astype(int)
            cv2.circle(frame, (int(x), int(y)), size[0] // 8, colour, -1)
        frame[:8, :8] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, clip, 25)
    return path


class Corner:
    """Finds the face in the middle of a wide frame, or that of an aligned one; none without the bright corner."""

    def __init__(self, weights: bytes = b"weights") -> None:
        self.name, self.files = "Corner", (Path("corner.onnx").absolute(),)
        self.files[0].write_bytes(weights)

    def __call__(self, frame: np.ndarray) -> list[Face]:
        if frame[:4, :4].mean() < 200:
            return []
        points = TEMPLATE_512 * len(frame) / 512 if frame.shape[0] == frame.shape[1] else FOUND
        return [Face(np.array([40, 20, 100, 80], np.float32), points.astype(np.float32), 1.0)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A present folder with ``videos`` in it: three wide, one square and aligned, one without a face, one broken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart_clips, "default_detector", Corner)
    for n, name in enumerate(("anna", "bob", "carl")):
        video(Path(f"videos/{name}.mp4"), seed=n)
    video(Path("videos/aligned.mp4"), size=(128, 128), seed=3)
    write_video(Path("videos/empty.mp4"), np.full((12, 64, 64, 3), 90, np.uint8), 25)
    Path("videos/broken.mp4").write_bytes(b"no video")
    return tmp_path


def run_printed(command: str, *settings: str) -> int:
    import keep.test
    import keep.train

    program, *arguments = shlex.split(command)
    door: Any = {"keep-train": keep.train, "keep-test": keep.test}[program]
    return door.main([*arguments, *(x for s in settings for x in ("--set", s))])


def test_from_a_folder_of_videos_to_a_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["videos", *SHORT, "-o", "mine"]) == 0
    printed = capsys.readouterr()
    commands = [line.strip() for line in printed.out.splitlines() if line.startswith("  keep-")]
    assert [c.split()[0] for c in commands] == ["keep-train"] * 3 + ["keep-test"]
    assert "very roughly" in printed.out
    assert "skipped: videos/empty.mp4: no face found" in printed.err
    assert "skipped: videos/broken.mp4" in printed.err

    small = ["model.net.channels=8", "model.net.ch_mult=[1, 1, 1, 1]", "model.net.latent_dim=8"]
    keep_net = [*small, *(f"model.net.{option}" for option in (
        "transformer_width=16", "transformer_layers=1", "transformer_mlp_width=16", "kalman_head_dim=8",
        "cfa_head_dim=8"))]  # fmt: skip
    toy = ["threads=1", "data.workers=0", "data.clips_per_step=1", "train.iters=2", "train.amp=null",
           "data.val.max_frames=2", "log.interval=1"]  # fmt: skip
    stages = {1: [*small, "model.perceptual=null", "model.gan_start=1"], 2: [*keep_net, "model.filter_start=1"],
              3: [*keep_net, "model.perceptual=null", "model.gan_start=1"]}  # fmt: skip
    for stage, command in enumerate(commands[:3], 1):
        assert run_printed(command, *toy, *stages[stage]) == 0
    short = [f"data.{split}.max_frames=3" for split in ("mild", "medium", "heavy")]
    assert run_printed(commands[3], *short, "threads=1", "save.clips=0", "save.worst=0") == 0
    table = Path("mine/results/test/table.md").read_text(encoding="utf-8")
    for word in ("mild", "medium", "heavy", "bicubic", "KEEP", "PSNR", "SSIM"):
        assert word in table


def test_clips_are_aligned_or_taken_and_people_held_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["videos", *SHORT, "-o", "mine"]) == 0
    assert Path("mine/clips/aligned.mp4").read_bytes() == Path("videos/aligned.mp4").read_bytes()
    assert (probe("mine/clips/anna.mp4").width, probe("mine/clips/anna.mp4").height) == (96, 96)
    names = {part: {c.name for c in PackedClips(f"mine/{part}.zip").clips} for part in ("train", "val", "test")}
    assert [len(n) for n in names.values()] == [2, 1, 1]
    assert set.union(*names.values()) == {"aligned", "anna", "bob", "carl"}
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("test"))
    assert names["test"].pop() in row


def test_the_record_names_the_detector_and_what_became_of_each_video(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("videos/carl.mp4").rename("carl.mp4")
    Path("videos/bob.mp4").unlink()
    assert main(["videos", *SHORT, "-o", "mine"]) == 2
    Path("carl.mp4").rename("videos/carl.mp4")
    monkeypatch.setattr(quickstart_clips, "default_detector", lambda: Corner(b"others"))
    capsys.readouterr()
    assert main(["videos", *SHORT, "-o", "mine"]) == 2
    assert "was begun with the detector Corner or other weights of it" in capsys.readouterr().err
    monkeypatch.setattr(quickstart_clips, "default_detector", Corner)
    assert main(["videos", *SHORT, "-o", "mine"]) == 0
    assert "videos: 2 aligned by Corner, 1 copied as aligned already" in capsys.readouterr().out
    record = json.loads(Path("mine/quickstart.json").read_text())
    assert record["detector"] == {
        "name": "Corner", "weights": {"corner.onnx": hashlib.sha256(b"weights").hexdigest()}
    }  # fmt: skip
    how = {name: video["how"] for name, video in record["videos"].items()}
    assert how == {"aligned": "copied", "anna": "aligned", "carl": "aligned", "empty": None, "broken": None}


def test_videos_of_one_subfolder_are_one_person() -> None:
    for n in range(3):
        video(Path(f"videos/dora/{n}.mp4"), seed=10 + n)
    assert main(["videos", *SHORT, "-o", "mine"]) == 0
    parts = [{c.name for c in PackedClips(f"mine/{p}.zip").clips} for p in ("train", "val", "test")]
    dora = {f"dora__{n}" for n in range(3)}
    assert any(dora <= names for names in parts)


@pytest.mark.parametrize(("count", "expected"), [(3, 1), (8, 1), (15, 2), (40, 4)])
def test_a_tenth_of_the_people_tests(count: int, expected: int) -> None:
    parts = hold_out([str(i) for i in range(count)], Path("videos"))
    assert (len(parts["val"]), len(parts["test"])) == (expected, expected)
    assert sorted(parts["train"] + parts["val"] + parts["test"]) == sorted(str(i) for i in range(count))


def test_an_interrupted_run_is_resumed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    align_one, done = quickstart_clips.align_one, []

    def stop_at_the_third(path: Path, *rest: Any) -> tuple[str, list[Path]]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path.stem)
        return align_one(path, *rest)

    monkeypatch.setattr(quickstart_clips, "align_one", stop_at_the_third)
    assert main(["videos", *SHORT, "-o", "mine"]) == 130
    assert not Path("mine/test.yml").exists()
    first = list(done)
    monkeypatch.setattr(quickstart_clips, "align_one", lambda p, *rest: done.append(p.stem) or align_one(p, *rest))
    assert main(["videos", *SHORT, "-o", "mine"]) == 0
    assert len(first) == 2
    assert sorted(done) == sorted(p.stem for p in Path("videos").iterdir())  # each once
    capsys.readouterr()
    assert main(["videos", *SHORT, "-o", "mine"]) == 2
    assert (
        capsys.readouterr().err
        == "error: mine: is finished; for other --steps remove mine/test.yml and repeat the command, the clips stay; "
        "or name another folder with -o\n"
    )


def message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error line."""
    assert main([*arguments, *SHORT, "-o", "mine"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("error: ") for line in error) == 1
    assert "Traceback" not in "".join(error)
    return error[-1]


def test_too_few_people_is_one_line_and_more_videos_continue(capsys: pytest.CaptureFixture[str]) -> None:
    Path("videos/carl.mp4").rename("carl.mp4")
    Path("videos/bob.mp4").unlink()
    line = message(capsys, "videos")
    assert line.startswith("error: videos: too few people: only 2 give a clip, and 3 are needed")
    Path("carl.mp4").rename("videos/carl.mp4")
    assert main(["videos", *SHORT, "-o", "mine"]) == 0


def test_what_cannot_be_used_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("nothing").mkdir()
    assert message(capsys, "nothing").startswith("error: nothing: holds no video (")
    assert message(capsys, "nowhere") == "error: nowhere: no such folder"
    assert not Path("mine").exists()
    write_video(Path("nothing/a.mp4"), np.full((12, 64, 64, 3), 90, np.uint8), 25)
    assert "too few people: none gives a clip" in message(capsys, "nothing")
    Path("mine/quickstart.json").unlink()
    assert message(capsys, "videos") == "error: mine: holds other files; name a new folder with -o"


def test_other_settings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("videos/bob.mp4").unlink()
    Path("videos/carl.mp4").unlink()
    message(capsys, "videos")
    assert main(["videos", *SHORT, "-o", "mine", "--largest", "3"]) == 2
    assert "mine: was begun with another --largest" in capsys.readouterr().err


def test_aligned_clips_need_no_detector(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(quickstart_clips, "default_detector", lambda: pytest.fail("loaded a detector"))
    for n in range(3):
        video(Path(f"squares/{n}.mp4"), size=(100, 100), seed=n)
    video(Path("squares/wide.mp4"))
    video(Path("squares/short.mp4"), size=(100, 100), frames=5)
    video(Path("squares/small.mp4"), size=(40, 40))
    assert main(["squares", *SHORT, "-o", "mine", "--aligned"]) == 0
    assert json.loads(Path("mine/quickstart.json").read_text())["detector"] is None
    printed = capsys.readouterr()
    assert "videos: 0 aligned, 3 copied as aligned already" in printed.out
    error = printed.err
    assert "squares/wide.mp4: is 160×120, not square" in error
    assert "squares/short.mp4: too short: 5 frames of 10" in error
    assert "squares/small.mp4: is small: it would be enlarged 2.4 times" in error


@pytest.mark.parametrize("size", sorted(RECIPES))
def test_the_options_of_every_size_fit_each_other(size: int) -> None:
    for n in range(3):
        video(Path(f"squares/{n}.mp4"), size=(160, 160), seed=n)
    steps = ["--steps", "40", "80", "20"]
    arguments = ["squares", "--size", str(size), "--min-frames", "5", "-o", "my clips", "--aligned", *steps]
    assert main(arguments) == 0
    stages: list[Any] = [load(Path(f"my clips/stage{n}.yml"), [], TrainConfig) for n in (1, 2, 3)]
    first, *later = (stage.model.options["net"].options for stage in stages)
    for stage, iters in zip(stages, (40, 80, 20), strict=True):
        assert stage.train.iters == iters
        assert stage.data.train.options["size"] == stage.data.val.options["size"] == size
        assert stage.data.train.build().size == size
    assert later[0] == later[1]
    assert first == {k: later[0][k] for k in first}
    assert first["image_size"] == size
    assert stages[1].model.options["filter_start"] == 60
    degradation = stages[2].data.train.build().pipeline
    assert degradation.steps[0].sigma == (2 * size / 512, 10 * size / 512)
    test = load(Path("my clips/test.yml"), [], TestConfig)
    assert test.data["mild"].build().pipeline.steps[0].sigma == (2 * size / 512, 5 * size / 512)


def test_a_face_is_aligned_if_alignment_would_not_move_it() -> None:
    assert quickstart_clips.corner_motion(TEMPLATE_512 / 2, 256) < 1e-6
    assert quickstart_clips.corner_motion(TEMPLATE_512 * 0.98 / 2 + 4, 256) < quickstart_clips.NEAR
    assert quickstart_clips.corner_motion(TEMPLATE_512 * 0.7 / 2 + 38, 256) > quickstart_clips.NEAR


def test_a_tenth_needs_three_people() -> None:
    with pytest.raises(UserError, match="one gives a clip, and 3 are needed"):
        hold_out(["a"], Path("videos"))
