"""Stopped by a scheduler's signal: saves after the current step, exits with status 75, and resumes exactly."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import ROOT, options_and_start

from keep import train as keep_train
from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.data.sampler import make_loader
from keep.training import trainer, validation
from keep.training.folder import list_states
from keep.utils import signals, weight_files


def overrides_of(clips: Path, root: Path, *more: str) -> tuple[Path, list[str]]:
    return options_and_start(1, clips, root, "device=cpu", "log.image_interval=100", "model.revive=2", *more)


def command(clips: Path, root: Path, *more: str) -> list[str]:
    path, overrides = overrides_of(clips, root, *more)
    return ["-opt", str(path), *(word for o in overrides for word in ("--set", o)), "--auto-resume"]


def signal_in_step(monkeypatch: pytest.MonkeyPatch, step: int, number: int) -> None:
    """Send the process a signal while it computes that step."""
    real = trainer.train_step

    def signalled(run: trainer.Run, batches: Any) -> Any:
        if run.step + 1 == step:
            os.kill(os.getpid(), number)
        return real(run, batches)

    monkeypatch.setattr(trainer, "train_step", signalled)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_in_the_middle_of_an_epoch_saves_and_requests_a_restart(
    number, clips, tmp_path, monkeypatch, capsys
) -> None:
    workers = 1 if number == signal.SIGTERM else 0
    more = ["log.save_interval=100", f"data.workers={workers}"]  # 3 steps end in the middle of an epoch of 2 clips
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        signal_in_step(patch, 3, number)
        assert keep_train.main(command(clips, tmp_path / "a", *more)) == signals.REQUEUE == 75
    error = capsys.readouterr().err
    assert f"saved at step 3 after {signal.Signals(number).name}" in error
    assert list(list_states(tmp_path / "a/stage1")) == [3]
    assert signal.getsignal(number) is before
    assert keep_train.main(command(clips, tmp_path / "a", *more)) == 0
    path, overrides = overrides_of(clips, tmp_path / "b", *more)
    uninterrupted = weight_files.load(trainer.train(load(path, overrides, TrainConfig)) / "models/net_4.pth")
    resumed = weight_files.load(tmp_path / "a/stage1/models/net_4.pth")
    for key in ("params", "params_ema"):
        assert all(torch.equal(v, resumed[key][k]) for k, v in uninterrupted[key].items())


def test_a_signal_during_validation_stops_at_once_and_the_resumed_run_repeats_the_validation(
    clips, tmp_path, monkeypatch, capsys
) -> None:
    val = f"data.val={{type: VideoClips, root: {clips}, size: 32, max_frames: 2}}"
    arguments = command(clips, tmp_path, "train.iters=2", "log.save_interval=100", val, "val.metrics=[PSNR]")
    with monkeypatch.context() as patch:
        real = validation.evaluate
        patch.setattr(
            validation, "evaluate", lambda *a, **k: (os.kill(os.getpid(), signal.SIGTERM), real(*a, **k))[1]
        )  # fmt: skip
        assert keep_train.main(arguments) == 75
    state = tmp_path / "stage1/training_states/2.state"
    assert weight_files.load(state)["scores"] == {}
    assert keep_train.main(arguments) == 0
    assert weight_files.load(state)["scores"].keys() == {2}


def test_workers_continue_after_a_signal() -> None:
    loader = make_loader(Slow(), 0, 1, stop=6, workers=2)  # type: ignore[arg-type]
    batches = iter(loader)
    assert next(batches)["gt"].item() == 0
    for worker in multiprocessing.active_children():  # one may still be starting
        assert worker.pid is not None
        for number in signals.SIGNALS:
            os.kill(worker.pid, number)
    assert [b["gt"].item() for b in batches] == [1, 2, 3, 4, 5]


class Slow:
    def __len__(self) -> int:
        return 6

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return {"gt": torch.tensor(key[1])}


def test_a_second_signal_ends_the_process_unless_it_is_an_echo() -> None:
    script = (
        "import os, signal, sys\n"
        "from keep.utils import signals\n"
        "signals.ECHO = float(sys.argv[1])\n"
        "with signals.StopRequest() as request:\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    print('continues', request.name)\n"
    )
    done = {
        echo: subprocess.run([sys.executable, "-c", script, echo], cwd=ROOT, capture_output=True, text=True)
        for echo in ("60", "-1")
    }
    assert done["60"].stdout.strip() == "continues SIGTERM"
    assert done["-1"].returncode == -signal.SIGUSR1
    assert done["-1"].stdout == ""


def test_a_crash_exits_with_its_traceback_and_not_as_done(clips, tmp_path, monkeypatch) -> None:
    def crash(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(trainer, "train_step", crash)
    with pytest.raises(ZeroDivisionError):  # the interpreter exits with 1
        keep_train.main(command(clips, tmp_path))
    assert not list_states(tmp_path / "stage1")


def test_outside_the_main_thread_no_signal_is_handled() -> None:
    before = signal.getsignal(signal.SIGTERM)
    requested = []

    def enter() -> None:
        with signals.StopRequest() as request:
            requested.append(bool(request))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert requested == [False]
    assert signal.getsignal(signal.SIGTERM) is before
