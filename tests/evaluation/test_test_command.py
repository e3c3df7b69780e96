"""``keep.test`` as a command: what it writes, how it resumes, how ranks share the clips, how it reports failures."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from networks import TINY, tiny
from tiny_runs import ROOT, options_and_start

from keep import test as keep_test
from keep import train as keep_train
from keep.config.registry import DEGRADATIONS, build
from keep.data.clips import VideoClips
from keep.data.images import read_images
from keep.data.video_io import probe, write_video
from keep.evaluation import benchmark
from keep.utils import lock
from keep.utils.errors import UserError

PLUGIN = """
import os, signal
import torch
from keep.utils.errors import UserError
from keep.metrics.base import Metric
from keep.config.registry import BASELINES, METRICS

@BASELINES.register()
class Shaky:
    '''Nearest neighbour that fails or kills the process in its second call.

    Args:
        how: what happens.
    '''
    def __init__(self, how: str = "") -> None:
        self.how, self.calls = how, 0
    def to(self, device):
        return self
    def __call__(self, lq):
        self.calls += 1
        if self.calls == 2 and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.calls == 2 and self.how == "refuse":
            raise UserError("not this clip")
        if self.calls == 2 and self.how == "break":
            raise RuntimeError("out of\\nmemory")
        output = lq.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
        return output[:-1] if self.how == "short" else output

@METRICS.register()
class Face(Metric):
    '''Has no value where the red of the truth's first pixel is under a level; no clip has a face above another.

    Args:
        level: of the frames without a face.
        none: no face at all.
    '''
    def __init__(self, level: int = 0, none: bool = False) -> None:
        self.level, self.none = level, none
        self.name, self.higher_is_better = "IDS (test)", True
    def measure(self, output, target):
        if self.none:
            raise UserError("no face in any frame of the ground truth")
        values = (output.frames == target.frames).double().mean(dim=(1, 2, 3)).numpy()
        values[: self.level] = float("nan")
        return values
"""

DEGRADATION = [
    {"type": "Downsample", "scale": 4, "modes": ["area"]},
    {"type": "GaussianNoise", "sigma": [5, 10]},
]  # fmt: skip


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "shaky.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def options(tmp_path: Path, clips: Path, plugin: Path):
    """(**changes) → an options file: two splits of two clips, bicubic and the shaky restorer, two metrics."""

    def write(**changes) -> list[str]:
        data = {"type": "VideoClips", "root": str(clips), "size": 32, "max_frames": 5, "degradation": DEGRADATION}
        content = {
            "name": "run",
            "root": "results",
            "threads": 1,
            "plugins": [str(plugin)],
            "data": {"mild": data, "own": {**data, "max_frames": 3}},
            "restorers": {"bicubic": "Bicubic", "shaky/one": "Shaky"},
            "metrics": ["PSNR", "Face"],
            "save": {"clips": 0, "worst": 0},
            **changes,
        }
        path = tmp_path / "options.yml"
        path.write_text(yaml.safe_dump(content))
        return ["-opt", str(path)]

    return write


def files(folder: Path) -> dict[str, bytes]:
    """Everything a run leaves, but its times."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {k: v for k, v in found.items() if not k.startswith("seconds/")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch):
    """Change into a new folder, in which results lie."""

    def change(name: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        return tmp_path / name / "results" / "run"

    return change


LOOK = {"clips": 1, "worst": 1}


def test_what_a_run_leaves(options, here, capsys):
    folder = here("a")
    assert keep_test.main(options(save=LOOK)) == 0
    output = capsys.readouterr().out
    for word in ("mild: 2 clips", "own: 2 clips", "shaky/one", "PSNR ↑", "time by part", "degrade"):
        assert word in output
    here_now = files(folder)
    for name in ("options.yml", "table.md", "table.tex", "frames.csv", "clips.csv", "results.json", "report.html"):
        assert name in here_now
    assert {n for n in here_now if n.startswith("clips/")} == {
        f"clips/{s}/disc{i}.json" for s in ("mild", "own") for i in (0, 1)
    }
    media = {n.removeprefix("media/mild/disc0/") for n in here_now if n.startswith("media/mild/disc0/")}
    assert media == {
        "input.mp4", "bicubic.mp4", "shaky%2Fone.mp4", "truth.mp4", "side by side.mp4", "contact sheet.png",
        "input xt.png", "bicubic xt.png", "shaky%2Fone xt.png", "truth xt.png",
        "bicubic worst.jpg", "shaky%2Fone worst.jpg",
    }  # fmt: skip
    assert probe(folder / "media/mild/disc0/truth.mp4").frames == 5
    assert not (folder / "media/mild/disc1/truth.mp4").exists()  # save.clips: 1
    assert (folder / "media/mild/disc1/bicubic worst.jpg").exists()
    assert not [n for n in here_now if ".tmp" in n]

    result = json.loads(here_now["results.json"])
    assert result["versions"]["torch"] == torch.__version__
    assert result["restorers"]["bicubic"] == "bicubic ×4"
    assert "max_frames: 5" in result["options"]
    assert len(result["code"]) == 64
    protocol = "Peak signal-to-noise ratio in dB"
    assert result["columns"][0]["protocol"].startswith(protocol)
    assert all(protocol in here_now[name].decode() for name in ("table.md", "report.html"))
    rows = {(r["split"], r["restorer"]): r for r in result["table"]}
    values = list(csv.DictReader(here_now["frames.csv"].decode().splitlines()))
    assert len(values) == 2 * 2 * 5 + 2 * 2 * 3
    own = [float(v["PSNR"]) for v in values if (v["split"], v["restorer"]) == ("mild", "bicubic")]
    assert rows["mild", "bicubic"]["PSNR"] == pytest.approx(sum(own) / len(own), abs=1e-9)
    clip = next(c for c in result["clips"] if (c["split"], c["clip"]) == ("mild", "disc1"))
    assert clip["restorers"]["bicubic"]["per_frame"]["PSNR"] == [
        float(v["PSNR"]) for v in values if (v["split"], v["restorer"], v["clip"]) == ("mild", "bicubic", "disc1")
    ]
    assert clip["degradation"][1]["type"] == "GaussianNoise"
    assert len(clip["sha256"]["gt"]) == 64


def test_times_lie_apart_and_cover_every_part(options, here):
    folder = here("a")
    assert keep_test.main(options()) == 0
    rows = json.loads((folder / "seconds/times.json").read_text())
    assert [r["part"] for r in rows] == [
        "decode", "degrade", "bicubic", "shaky/one", "PSNR", "IDS (test)", "pictures", "all"
    ]  # fmt: skip
    assert rows[-1]["seconds"] == pytest.approx(sum(r["seconds"] for r in rows[:-1]))
    assert all(r["seconds"] >= 0 for r in rows)
    assert rows[2]["peak GiB"] > 0
    assert (folder / "seconds/times.js").read_text().startswith("window.keepTimes = [")


def test_the_same_again_does_nothing_anew(options, here, monkeypatch, capsys):
    folder = here("a")
    arguments = options()
    assert keep_test.main(arguments) == 0
    first = files(folder)
    monkeypatch.setattr(benchmark, "score_unit", lambda *_: pytest.fail("a clip was done again"))
    capsys.readouterr()
    assert keep_test.main(arguments) == 0
    assert "4 already scored" in capsys.readouterr().out
    assert files(folder) == first


def test_killed_in_the_middle_and_started_again_it_gives_the_files_of_one_run(options, here):
    folder = here("whole")
    assert keep_test.main(options(save=LOOK)) == 0
    whole = files(folder)

    folder = here("killed")
    dying = options(save=LOOK, restorers={"bicubic": "Bicubic", "shaky/one": {"type": "Shaky", "how": "kill"}})
    done = subprocess.run([sys.executable, "-m", "keep.test", *dying], env=environment(), capture_output=True)
    assert done.returncode == -9
    assert [n for n in files(folder) if n.startswith("clips/")] == ["clips/mild/disc0.json"]
    # The options of the killed run differ, so its record is not taken: then it is put in as the right one's.
    (folder / "clips/mild/disc0.json").write_bytes(whole["clips/mild/disc0.json"])
    assert keep_test.main(options(save=LOOK)) == 0
    assert files(folder) == whole


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_killed_between_its_clips_it_goes_on_with_the_rest(options, here, monkeypatch, capsys):
    folder = here("whole")
    assert keep_test.main(options(save=LOOK)) == 0
    whole = files(folder)

    folder = here("stopped")
    score_unit, calls = benchmark.score_unit, []

    def stop_at_the_third(*arguments):
        calls.append(arguments[0].clip)
        if len(calls) == 3:
            raise KeyboardInterrupt
        score_unit(*arguments)

    monkeypatch.setattr(benchmark, "score_unit", stop_at_the_third)
    assert keep_test.main(options(save=LOOK)) == 130
    assert "report.html" not in files(folder)
    assert keep_test.main(options(save=LOOK)) == 0
    assert calls == ["disc0", "disc1", "disc0", "disc0", "disc1"]
    assert files(folder) == whole


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_ranks_give_the_files_of_one_whoever_is_last(options, here, monkeypatch, capsys, order):
    folder = here("whole")
    assert keep_test.main(options(save=LOOK)) == 0
    whole = files(folder)

    folder = here("ranks")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(order[0]))
    assert keep_test.main(options(save=LOOK)) == 0
    assert "the last one writes the report" in capsys.readouterr().out
    assert len([n for n in files(folder) if n.startswith("clips/")]) == 2
    monkeypatch.setenv("RANK", str(order[1]))
    assert keep_test.main(options(save=LOOK)) == 0
    assert files(folder) == whole


def test_an_early_rank_waits_for_what_another_is_to_try_again(options, here, monkeypatch, capsys):
    """The old failure of another rank is no result; and only the last rank has the status of the run."""
    folder = here("ranks")
    arguments = options(restorers={"bicubic": "Bicubic", "shaky": {"type": "Shaky", "how": "refuse"}})
    monkeypatch.setenv("KEEP_LAUNCH", "1")
    assert keep_test.main(arguments) == 1  # fails in mild/disc1, which is rank 1's
    (folder / "report.html").unlink()
    monkeypatch.setenv("KEEP_LAUNCH", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert keep_test.main(arguments) == 0
    assert not (folder / "report.html").exists()
    assert "other ranks still score 1 clips" in capsys.readouterr().out
    monkeypatch.setenv("RANK", "1")
    assert keep_test.main(arguments) == 0
    assert (folder / "report.html").exists()


def test_a_killed_rank_is_named_and_the_next_start_scores_its_clips(options, here, monkeypatch, capsys):
    folder = here("ranks")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    folder.parent.mkdir(parents=True, exist_ok=True)
    left = folder.parent / f".{folder.name}.lock-rank1"
    host = lock._host()
    owner = {"host": host, "pid": 2**22 + 1, "started": "1", "group": "", "since": "2026-01-01", "key": "0"}
    left.write_text(json.dumps(owner))
    os.utime(left, (time.time() + 60, time.time() + 60))  # its last sign of life is in this run
    assert keep_test.main(options()) == 1
    line = capsys.readouterr().out
    assert f"error: rank1 (process {2**22 + 1} on {host.split('/')[0]}) was killed" in line
    assert "2 clips have no score yet: start the same command again" in line
    monkeypatch.setenv("RANK", "1")
    assert keep_test.main(options()) == 0
    assert (folder / "report.html").exists()
    assert not left.exists()


@pytest.mark.slow
def test_torchrun_gives_the_files_of_one_process(options, here):
    folder = here("whole")
    assert keep_test.main(options(save=LOOK)) == 0
    whole = files(folder)
    folder = here("ranks")
    arguments = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "-m", "keep.test"]
    subprocess.run(
        [sys.executable, *arguments, *options(save=LOOK)], env=environment(), check=True, capture_output=True
    )
    assert files(folder) == whole


def test_num_is_a_quick_look_beside_the_run(options, here):
    folder = here("a")
    assert keep_test.main([*options(), "--num", "1"]) == 0
    assert not folder.exists()
    quick = folder.with_name("run_1")
    result = json.loads((quick / "results.json").read_text())
    assert [s["clips"] for s in result["splits"]] == [["disc0"], ["disc0"]]
    assert keep_test.main([*options(), "--num", "0"]) == 2


def test_new_weights_under_the_old_name_are_seen(options, here, tmp_path):
    folder = here("a")
    weights = tmp_path / "net.pth"
    net = {"type": "KEEP", **{k: list(v) if isinstance(v, tuple) else v for k, v in TINY.items()}, "flow": "dis"}
    restorers = {"KEEP": {"type": "KEEP", "weights": str(weights), "net": net}}

    def run(shift: float, **look) -> str:
        state = tiny(flow=None).state_dict()
        torch.save({k: v + shift if k == "generator.blocks.0.bias" else v for k, v in state.items()}, weights)
        assert keep_test.main([*options(restorers=restorers, metrics=["PSNR"], save=look), "--num", "1"]) == 0
        return json.loads((folder / "results.json").read_text())["files"][str(weights)]

    folder = folder.with_name("run_1")
    first = run(0.0, **LOOK)
    before = files(folder)
    assert "media/mild/disc0/KEEP gain.mp4" in before
    assert "gain" in json.loads(before["clips/mild/disc0.json"])["restorers"]["KEEP"]
    assert run(0.5, clips=0, worst=0) != first
    assert files(folder)["frames.csv"] != before["frames.csv"]
    assert run(0.0, clips=0, worst=0) == first
    assert files(folder)["frames.csv"] == before["frames.csv"]


def test_other_options_are_not_mixed_with_old_records(options, here):
    folder = here("a")
    assert keep_test.main(options()) == 0
    first = files(folder)
    assert keep_test.main([*options(), "--set", "seed=1"]) == 0
    assert files(folder)["frames.csv"] != first["frames.csv"]
    assert keep_test.main([*options(), "--set", "save.clips=2"]) == 0  # no other numbers, more to look at
    assert files(folder)["frames.csv"] == first["frames.csv"]
    assert (folder / "media/mild/disc1/truth.mp4").exists()


def test_frames_are_kept_without_loss(options, here):
    folder = here("a")
    assert keep_test.main(options(save=LOOK)) == 0
    assert not (folder / "media/mild/disc0/truth").exists()
    assert keep_test.main([*options(save=LOOK), "--set", "save.frames=png"]) == 0  # no other numbers, more to look at
    shown = folder / "media/mild/disc0"
    assert {p.name for p in shown.iterdir() if p.is_dir()} == {"input", "bicubic", "shaky%2Fone", "truth"}
    assert not (folder / "media/mild/disc1/truth").exists()  # save.clips: 1
    truth, output = (read_images(sorted((shown / name).glob("*.png"))).astype(float) for name in ("truth", "bicubic"))
    values = [10 * np.log10(255**2 / ((a - b) ** 2).mean()) for a, b in zip(truth, output, strict=True)]
    rows = csv.DictReader((folder / "frames.csv").read_text().splitlines())
    scored = [float(r["PSNR"]) for r in rows if (r["split"], r["restorer"], r["clip"]) == ("mild", "bicubic", "disc0")]
    assert values == pytest.approx(scored, abs=1e-6)


def count_calls(monkeypatch) -> list[tuple[str, list[str]]]:
    score_unit, calls = benchmark.score_unit, []

    def counted(unit, config, dataset, restorers, *more):
        calls.append((f"{unit.split}/{unit.clip}", list(restorers)))
        score_unit(unit, config, dataset, restorers, *more)

    monkeypatch.setattr(benchmark, "score_unit", counted)
    return calls


def test_a_new_restorer_leaves_the_others_as_they_are(options, here, monkeypatch):
    three = {"bicubic": "Bicubic", "lanczos": "Lanczos", "shaky": "Shaky"}
    whole = here("whole")
    assert keep_test.main(options(restorers=three, save=LOOK)) == 0
    folder = here("grown")
    assert keep_test.main(options(restorers={k: three[k] for k in ("bicubic", "shaky")}, save=LOOK)) == 0
    calls = count_calls(monkeypatch)
    assert keep_test.main(options(restorers=three, save=LOOK)) == 0
    assert calls == [
        ("mild/disc0", list(three)), ("mild/disc1", ["lanczos"]), ("own/disc0", list(three)), ("own/disc1", ["lanczos"])
    ]  # fmt: skip
    assert files(folder) == files(whole)


def test_edited_code_and_another_default_file_are_not_given_old_numbers(options, here, tmp_path, monkeypatch):
    here("a")
    default = tmp_path / "default.npz"
    plugin = tmp_path / "opens.py"
    plugin.write_text(f"""
from pathlib import Path
from keep.metrics.psnr_ssim import SSIM
from keep.config.registry import METRICS

@METRICS.register()
class Opens(SSIM):
    'Loads a file that no option names.'
    def __init__(self) -> None:
        super().__init__()
        self.files = (Path({str(default)!r}),)
""")
    default.write_bytes(b"one")
    arguments = options(plugins=[str(plugin)], metrics=["PSNR", "Opens"], restorers={"bicubic": "Bicubic"})
    calls = count_calls(monkeypatch)
    assert keep_test.main(arguments) == 0
    result = json.loads(Path("results/run/results.json").read_text())
    assert str(default) in result["files"]
    assert keep_test.main(arguments) == 0
    assert len(calls) == 4
    default.write_bytes(b"another")
    assert keep_test.main(arguments) == 0
    assert len(calls) == 8
    monkeypatch.setattr(benchmark, "code", lambda: "edited")
    assert keep_test.main(arguments) == 0
    assert len(calls) == 12


def test_halves_of_videos_that_a_killed_run_left_are_removed(options, here):
    folder = here("a")
    half = folder / "media/mild/disc0/.side by side.4711.mp4"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert keep_test.main(options(save=LOOK)) == 0
    assert not half.exists()
    assert (half.parent / "side by side.mp4").exists()


def test_pairs_on_disk_give_the_numbers_of_degrading_on_the_fly(options, here, clips, tmp_path):
    folder = here("a")
    assert keep_test.main(options(save={"clips": 0})) == 0
    expected = files(folder)["frames.csv"]
    (tmp_path / "lq").mkdir()
    dataset = VideoClips(str(clips), size=32, degradation=tuple(build(DEGRADATIONS.spec(d)) for d in DEGRADATION))
    dataset.max_frames = 5
    for i in range(2):
        frames = dataset[0, i]["lq"].permute(0, 2, 3, 1).numpy()
        write_video(tmp_path / f"lq/disc{i}.mkv", frames, fps=25, codec="ffv1")
    gt = {"type": "VideoClips", "root": str(clips), "size": 32, "max_frames": 5}
    pairs = {"type": "PairedClips", "gt": gt, "lq": str(tmp_path / "lq")}
    folder = here("b")
    assert keep_test.main(options(data={"mild": pairs}, save={"clips": 0})) == 0
    mild = [line for line in expected.decode().splitlines() if not line.startswith("own")]
    assert files(folder)["frames.csv"].decode().splitlines() == mild


# --- what cannot be done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("refuse", "mild/disc1: shaky: not this clip"),
        ("break", "mild/disc1: shaky: RuntimeError: out of memory"),
        (
            "short",
            "returned 4 frames of 32×32 for an input of 5 frames of 8×8, but the ground truth is 5 frames",
        ),
    ],
)
def test_a_restorer_that_fails_in_a_clip_is_reported_and_the_rest_continues(options, here, capsys, how, says):
    folder = here("a")
    restorers = {"bicubic": "Bicubic", "shaky": {"type": "Shaky", "how": how}}
    assert keep_test.main(options(restorers=restorers)) == 1
    output = capsys.readouterr().out
    assert says in output
    assert ("Traceback" in output) == (how == "break")
    result = json.loads((folder / "results.json").read_text())
    cells = {r["restorer"]: r["cells"]["PSNR"] for r in result["splits"][0]["rows"]}
    assert cells["bicubic"]["clips"] == 2
    assert cells["shaky"]["clips"] == (0 if how == "short" else 1)
    assert any("mild" in p and "disc" in p for p in result["problems"])
    # The next run tries what has failed again, and nothing else.
    assert keep_test.main(options(restorers=restorers)) == (1 if how == "short" else 0)


def test_frames_and_clips_without_a_face_are_counted_not_averaged_in(options, here, monkeypatch, capsys):
    folder = here("a")
    assert keep_test.main(options(metrics=[{"type": "Face", "level": 2}, "PSNR"])) == 0
    output = capsys.readouterr().out
    assert "bicubic: without a value, excluded from the means: 4 frames (IDS (test))" in output
    result = json.loads((folder / "results.json").read_text())
    own = next(c for c in result["clips"] if c["split"] == "mild" and c["clip"] == "disc0")["restorers"]["bicubic"]
    values = own["per_frame"]["IDS (test)"]
    assert values[:2] == [None, None]
    assert own["scores"]["IDS (test)"] == pytest.approx(sum(values[2:]) / 3)

    assert keep_test.main(options(metrics=[{"type": "Face", "none": True}, "PSNR"])) == 1
    output = capsys.readouterr().out
    assert "error: mild/disc0: bicubic: IDS (test): no face in any frame of the ground truth" in output
    result = json.loads((folder / "results.json").read_text())
    assert result["splits"][0]["rows"][0]["cells"]["IDS (test)"]["mean"] is None
    assert result["splits"][0]["rows"][0]["cells"]["PSNR"]["clips"] == 2
    assert "mild: disc0 and 1 more clips: bicubic: IDS (test): no face in any frame" in "\n".join(result["problems"])
    monkeypatch.setattr(
        benchmark, "score_unit", lambda *_: pytest.fail("there is still no face, and it was looked for")
    )
    assert keep_test.main(options(metrics=[{"type": "Face", "none": True}, "PSNR"])) == 1


def test_a_missing_weight_leaves_out_its_row_or_column(options, here, capsys):
    folder = here("a")
    restorers = {"bicubic": "Bicubic", "KEEP": {"type": "KEEP", "weights": "nowhere.pth"}}
    metrics = ["PSNR", {"type": "LPIPS", "net": "squeeze", "weights": "nothing.pth"}]
    assert keep_test.main(options(restorers=restorers, metrics=metrics)) == 1
    output = capsys.readouterr().out
    assert "error: restorer KEEP: there is no checkpoint nowhere.pth; skipped" in output
    assert "nothing.pth" in output
    assert output.count("nothing.pth") == 2  # at once, and at the end
    result = json.loads((folder / "results.json").read_text())
    assert [r["restorer"] for r in result["splits"][0]["rows"]] == ["bicubic"]
    assert [c["name"] for c in result["columns"]] == ["PSNR"]
    assert len(result["problems"]) == 2
    assert "nowhere.pth" in (folder / "report.html").read_text()


def test_a_ground_truth_cut_short_is_one_failed_clip(options, here, clips, tmp_path, capsys):
    folder = here("a")
    copies = tmp_path / "gt"
    copies.mkdir()
    for path in clips.glob("disc*"):
        (copies / path.name).write_bytes(path.read_bytes())
    bad = next(copies.glob("disc1.*"))
    bad.write_bytes(bad.read_bytes()[:300])
    data = {"type": "VideoClips", "root": str(copies), "size": 32, "max_frames": 5, "degradation": DEGRADATION}
    assert keep_test.main(options(data={"mild": data})) == 1
    assert "error: mild/disc1: " in capsys.readouterr().out
    result = json.loads((folder / "results.json").read_text())
    assert result["splits"][0]["clips"] == ["disc0", "disc1"]
    assert result["splits"][0]["rows"][0]["cells"]["PSNR"]["clips"] == 1
    assert any("disc1" in line for line in result["problems"])


def test_a_damaged_clip_is_reported_and_the_rest_continues(options, here, clips, monkeypatch, capsys):
    folder = here("a")
    read = VideoClips.read

    def read_or_not(self, clip, *more):
        if clip.name == "disc1":
            raise UserError("disc1.mkv: truncated or damaged")
        return read(self, clip, *more)

    monkeypatch.setattr(VideoClips, "read", read_or_not)
    assert keep_test.main(options()) == 1
    assert "error: mild/disc1: disc1.mkv: truncated or damaged" in capsys.readouterr().out
    result = json.loads((folder / "results.json").read_text())
    assert result["splits"][0]["clips"] == ["disc0", "disc1"]
    assert result["splits"][0]["rows"][0]["cells"]["PSNR"]["clips"] == 1
    monkeypatch.undo()
    here("a")
    assert keep_test.main(options()) == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"restorers": {"KEEP": {"type": "KEEP", "weights": "nowhere.pth"}}}, "no restorer can be built"),
        ({"restorers": {"truth": "Bicubic"}}, "truth is the name of a panel"),
        ({"paper": {"test": "mild"}}, "paper: test: no such split"),
        ({"data": {}}, "data"),
        ({"data": {"mild": {"type": "VideoClips", "root": "nowhere"}}}, "nowhere: no such folder"),
        ({"metrics": ["PSNR", "PSNR"]}, "two columns are named PSNR"),
    ],
)  # fmt: skip
def test_bad_input_is_exit_2_and_nothing_written(options, here, capsys, changes, says):
    folder = here("a")
    assert keep_test.main(options(**changes)) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not folder.parent.exists()


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "1"), ("x", "2")])
def test_an_impossible_rank_is_reported(options, here, monkeypatch, capsys, rank, world):
    here("a")
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    assert keep_test.main(options()) == 2
    assert "RANK" in capsys.readouterr().err


# --- training and test agree -----------------------------------------------------------------------------------------


def test_validation_while_training_prints_the_numbers_of_keep_test(clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"type": "VideoClips", "root": str(clips), "size": 32, "max_frames": 5, "degradation": DEGRADATION}
    path, overrides = options_and_start(
        3, clips, tmp_path / "experiments", f"data.val={json.dumps(data)}", "val.interval=4", "val.metrics=[PSNR, SSIM]"
    )
    assert keep_train.main(["-opt", str(path), *(w for o in overrides for w in ("--set", o))]) == 0
    run = tmp_path / "experiments/stage3"
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    validated = {k: v for r in records if r["step"] == 4 for k, v in r.items() if k.startswith("val/")}

    content = {
        "name": "same", "threads": 1, "data": {"test": data}, "metrics": ["PSNR", "SSIM"],
        "restorers": {"KEEP": {"type": "KEEP", "weights": str(run / "models/net_latest.pth")}},
    }  # fmt: skip
    (tmp_path / "test.yml").write_text(yaml.safe_dump(content))
    assert keep_test.main(["-opt", str(tmp_path / "test.yml")]) == 0
    (row,) = json.loads((tmp_path / "results/same/results.json").read_text())["table"]
    assert validated.keys() == {"val/PSNR (ema)", "val/SSIM (ema)"}
    for metric in ("PSNR", "SSIM"):
        assert f"{validated[f'val/{metric} (ema)']:.4f}" == f"{row[metric]:.4f}"


def test_a_quick_run_scores_a_few_frames_beside_the_full_results(options, here, capsys, monkeypatch):
    folder = here("a")
    monkeypatch.setattr(keep_test, "QUICK", (1, 4))
    assert keep_test.main([*options(), "--quick"]) == 0
    quick = folder.with_name("run_1x4")
    frames = {f"{p.parent.name}/{p.stem}": json.loads(p.read_text())["frames"] for p in quick.glob("clips/*/*.json")}
    assert frames == {"mild/disc0": 4, "own/disc0": 3}  # the second split has max_frames: 3
    assert not folder.exists()
    assert keep_test.main([*options(), "--quick", "--num", "2"]) == 2
    assert "give --quick or --num" in capsys.readouterr().err


def test_the_report_names_the_training_of_each_row(options, here):
    folder = here("a")
    assert keep_test.main(options(trained={"bicubic": "nothing to train"})) == 0
    result = json.loads((folder / "results.json").read_text())
    assert result["restorers"] == {"bicubic": "bicubic ×4; trained: nothing to train", "shaky/one": "Shaky"}
    assert "bicubic ×4; trained: nothing to train" in (folder / "table.md").read_text()
    assert keep_test.main(options(trained={"bicubc": "nothing"})) == 2


def test_clips_without_truth_take_metrics_without_a_reference_alone(options, here, clips, capsys):
    folder = here("a")
    own = {"type": "LowQualityClips", "clips": {"type": "VideoClips", "root": str(clips), "size": 32, "max_frames": 3}}
    flow = {"type": "WarpingError", "flow": {"type": "dis", "preset": "ultrafast"}}
    assert keep_test.main(options(data={"own": own}, metrics=[flow, "PSNR"])) == 2
    assert "metrics: PSNR compare with a ground truth, and the clips of own have none" in capsys.readouterr().err
    assert keep_test.main(options(data={"own": own}, metrics=[flow])) == 0
    result = json.loads((folder / "results.json").read_text())
    assert {r["restorer"] for r in result["table"] if r["E_warp (DIS-ultrafast)"] >= 0} == {"bicubic", "shaky/one"}
