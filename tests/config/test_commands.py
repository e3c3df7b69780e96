"""``keep.train`` and ``keep.test`` as a user types them: exit status, one clear line, the files they leave."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from keep import test as keep_test
from keep import train as keep_train
from keep.config import cli
from keep.data.video_io import probe

ROOT = Path(__file__).resolve().parents[2]


def command(tiny, stage: int, *more: str) -> list[str]:
    path, overrides = tiny(stage, *more)
    return ["-opt", str(path), *(word for o in overrides for word in ("--set", o))]


@pytest.fixture
def trained(tiny, tmp_path: Path) -> Path:
    """Stages I and II trained; stage II's checkpoint, and stage III's beside it."""
    for stage in (1, 2, 3):
        assert keep_train.main(command(tiny, stage)) == 0
    return tmp_path / "experiments/stage3/models/net_latest.pth"


def test_train_then_test_leaves_table_values_video_and_pictures(
    trained: Path, clips: Path, tmp_path: Path, capsys
) -> None:
    arguments = ["-opt", str(ROOT / "options/tiny/test.yml")]
    for override in (
        f"root={tmp_path / 'results'}", *(f"data.{split}.root={clips}" for split in ("mild", "medium", "heavy")),
        "data.mild.size=32", "data.medium.size=32", "data.heavy.size=32",
        f"restorers.KEEP.weights={trained}", f"restorers.KEEP per frame.weights={trained}", "save.clips=1",
    ):  # fmt: skip
        arguments += ["--set", override]
    assert keep_test.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "bicubic" in printed
    assert "PSNR" in printed
    assert f"KEEP (params_ema) {trained}" in printed  # the weights are named beside the numbers

    folder = tmp_path / "results/test"
    result = json.loads((folder / "results.json").read_text())
    assert {row["split"] for row in result["table"]} == {"mild", "medium", "heavy"}
    rows = {row["restorer"]: row for row in result["table"] if row["split"] == "medium"}
    assert rows.keys() == {"bicubic", "KEEP per frame", "KEEP"}
    with (folder / "frames.csv").open() as file:
        values = list(csv.DictReader(file))
    assert len(values) == 3 * 3 * 2 * 12  # splits × restorers × clips × frames
    mean = sum(float(v["PSNR"]) for v in values if v["restorer"] == "KEEP" and v["split"] == "medium") / 24
    assert rows["KEEP"]["PSNR"] == pytest.approx(mean, abs=1e-4)
    assert "| KEEP " in (folder / "table.md").read_text()
    media = folder / "media/medium/disc0"
    assert probe(media / "side by side.mp4").frames == 12
    assert (media / "contact sheet.png").stat().st_size > 1000
    assert (media / "KEEP gain.png").stat().st_size > 1000
    assert not (folder / "media/medium/disc1/side by side.mp4").exists()

    first = (folder / "frames.csv").read_bytes()
    assert keep_test.main(arguments) == 0
    assert (folder / "frames.csv").read_bytes() == first  # same seed, same scores


def test_a_plugin_of_one_arch_and_one_loss_trains(tiny, tmp_path: Path) -> None:
    _, overrides = tiny(1)
    arguments = ["-opt", str(ROOT / "docs/examples/my_parts.yml")]
    for override in overrides:
        arguments += ["--set", override]
    assert keep_train.main(arguments) == 0
    saved = (tmp_path / "experiments/my_parts/options.yml").read_text()
    assert "EdgeDiscriminator" in saved
    assert "Huber" in saved
    state = torch.load(tmp_path / "experiments/my_parts/training_states/4.state", weights_only=True)
    assert any(k.startswith("discriminator.net.0") for k in state["recipe"])


def test_dry_run_of_the_shipped_stage_two_names_the_missing_weights(capsys) -> None:
    assert keep_train.main(["-opt", str(ROOT / "options/train/stage2_kalman.yml"), "--dry-run",
                            "--set", "pretrained.vqgan=nowhere.pth", "--set", "model.net.flow=dis"]) == 2  # fmt: skip
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "needs stage I's VQGAN" in error
    assert "pretrained.vqgan" in error


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.train.root=nowhere"], "nowhere: no such folder or file"),
        (["data.train.clip_length=40"], "has 12 frames, but clip_length 40"),
        (["device=gpu"], "device: 'gpu' is not a device"),
        (["model.gan=null"], "model.discriminator and model.gan go together"),
        (["plugins=[nothing.py]"], "plugins: there is no file"),
        (["train.iters=0"], "train.iters"),
        (["seed=-1"], "seed"),
        (["name=.."], "name: expected letters"),
        (["root=README.md"], "README.md"),
        (["data.train.clip_length=null", "data.train.flip=false", "data.train.tone_jitter=[0, 0]"], "clip_length"),
        (["data.train.interval=3"], "data.train.interval: expected a list"),
        (["model.net.ch_mult=[1,2,2,2,2,2,2]"], "image_size 32"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(tiny, tmp_path: Path, capsys, more, message) -> None:
    assert keep_train.main(command(tiny, 1, *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "experiments").exists()


def test_stage_two_without_degradation_is_reported(tiny, capsys) -> None:
    assert keep_train.main(command(tiny, 1)) == 0
    assert keep_train.main(command(tiny, 2, "data.train.degradation=[]")) == 2
    assert "data.train.degradation: KalmanModel needs degraded clips" in capsys.readouterr().err


def test_a_video_that_is_none_is_named(tiny, tmp_path: Path, capsys) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/notes.mp4").write_text("not a video")
    assert keep_train.main(command(tiny, 1, f"data.train.root={tmp_path / 'bad'}")) == 2
    assert "notes.mp4" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"hello"])
def test_a_checkpoint_that_is_none_is_refused(tiny, tmp_path: Path, capsys, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    assert keep_train.main(command(tiny, 2, f"pretrained.vqgan={tmp_path / 'x.pth'}")) == 2
    error = capsys.readouterr().err
    assert "x.pth" in error
    assert "Traceback" not in error


def test_a_checkpoint_with_code_in_it_is_refused(tiny, tmp_path: Path, capsys) -> None:
    torch.save({"params": subprocess.Popen}, tmp_path / "x.pth")
    assert keep_train.main(command(tiny, 2, f"pretrained.vqgan={tmp_path / 'x.pth'}")) == 2
    assert "more than tensors and plain data" in capsys.readouterr().err


def test_no_options_file_is_reported(capsys) -> None:
    assert keep_train.main([]) == 2
    assert "-opt" in capsys.readouterr().err


@pytest.mark.parametrize("main", [keep_train.main, keep_test.main])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-such"], "unrecognized arguments: --no-such; see --help"),
        (["-opt"], "argument -opt/--opt: expected one argument; see --help"),
        (["-opt", "{folder}"], "cannot read the options file {folder}: Is a directory"),
    ],
)
def test_a_wrong_command_line_is_reported_in_one_line(main, arguments, message: str, tmp_path: Path, capsys) -> None:
    assert main([a.format(folder=tmp_path) for a in arguments]) == 2
    assert capsys.readouterr().err == f"error: {message.format(folder=tmp_path)}\n"


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**52), lambda: np.empty(2**52)])
def test_sizes_beyond_the_memory_are_reported_in_one_line(allocate, capsys) -> None:
    assert cli.run(lambda _: allocate() and None) == 2
    assert capsys.readouterr().err == "error: not enough memory for these sizes: reduce them\n"


def test_other_errors_of_torch_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size"):
        cli.run(lambda _: len(torch.zeros(2) + torch.zeros(3)))


def test_explain_and_schema_print_and_stop(capsys) -> None:
    assert keep_train.main(["-opt", str(ROOT / "options/tiny/stage3.yml"), "--explain"]) == 0
    assert "model.temporal.weight" in capsys.readouterr().out
    assert keep_test.main(["--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$defs"]


def test_import_of_keep_is_light() -> None:
    code = """
import sys, time, torch
start = time.perf_counter()
import keep
print(time.perf_counter() - start)
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    seconds, modules = done.stdout.splitlines()
    assert float(seconds) < 0.5
    assert not {"cv2", "av", "matplotlib", "lpips", "torchvision"} & set(modules.split())
