"""Runs the trials of a sweep; the same command continues it."""

import argparse
import hashlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from keep.config.cli import check_output
from keep.config.reading import to_yaml
from keep.config.schema import TrainConfig
from keep.training.sweep.params import Param, Score, check_params, parse_param, score_of
from keep.training.sweep.results import write_results
from keep.utils.credentials import without_credentials
from keep.utils.errors import UserError
from keep.utils.lock import lock
from keep.utils.logging import log
from keep.utils.signals import REQUEUE, SIGNALS

INTERRUPTED = (REQUEUE, 130, 143, -2, -15)
"""Exit statuses of a training that was stopped from outside: its trial is not over."""


def run(config: TrainConfig, args: argparse.Namespace) -> int:
    """Run trials until there are ``args.trials``, and write the results.

    Returns:
        0; 1 if no trial of all has a score; the status of a training that was stopped.

    Raises:
        UserError: a wrong option, a folder of another sweep, or Optuna is missing.
    """
    optuna = import_optuna()
    params = [parse_param(text) for text in args.param]
    check_params(params, args.opt, args.set)
    score = score_of(config, args.metric)
    folder = args.output or Path("sweeps") / config.name
    check_output(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        study = open_study(optuna, folder, params, score, config, args)
        while (trial := next_trial(optuna, study, args.trials)) is not None:
            if status := run_trial(optuna, study, trial, params, score, folder, args):
                return status
        write_results(folder, study, params, score, args)
    return 0 if any(trial.state.name == "COMPLETE" for trial in study.trials) else 1


def import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError('keep.sweep needs the package optuna: pip install "keep-vfsr[sweep]"') from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_study(
    optuna: Any, folder: Path, params: list[Param], score: Score, config: TrainConfig, args: argparse.Namespace
) -> Any:
    """The study in ``study.db``. The content of the options tells whether it is the same sweep, not their file.

    Raises:
        UserError: it is of another sweep.
    """
    study = optuna.create_study(
        storage=f"sqlite:///{folder.resolve() / 'study.db'}", study_name="sweep", load_if_exists=True,
        direction="maximize" if score.higher_is_better else "minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )  # fmt: skip
    options = hashlib.sha256(to_yaml(config).encode()).hexdigest()
    own = {
        "options": options, "set": [without_credentials(text) for text in args.set],
        "params": [without_credentials(p.text) for p in params], "seeds": args.seeds, "metric": score.name,
    }  # fmt: skip
    before = study.user_attrs.get("sweep", own)
    if before != own:
        changed = ", ".join(key for key in own if before.get(key) != own[key])
        raise UserError(f"{folder} holds another sweep (different: {changed}): choose another folder with -o")
    study.set_user_attr("sweep", own)
    return study


def next_trial(optuna: Any, study: Any, count: int) -> Any:
    """The trial that a stopped sweep left unfinished, else a new one; None if there are ``count`` finished ones.

    A proposal depends on the finished trials and its own number alone, not on where the sweep was stopped.
    """
    trials = study.get_trials(deepcopy=False)
    for frozen in trials:
        if frozen.state == optuna.trial.TrialState.RUNNING:
            return optuna.trial.Trial(study, frozen._trial_id)
    if len(trials) >= count:
        return None
    study.sampler = optuna.samplers.TPESampler(seed=len(trials))
    return study.ask()


def run_trial(
    optuna: Any, study: Any, trial: Any, params: list[Param], score: Score, folder: Path, args: argparse.Namespace
) -> int:
    """Train with every seed, and record the scores; after a seed, a trial below the median of the others is pruned.

    Returns:
        0, or the status of a training that was stopped: the trial stays open.
    """
    values = {param.key: param.suggest(trial) for param in params}
    log.info(f"trial {trial.number}: " + "  ".join(f"{k}={v}" for k, v in values.items()))
    scores: list[float] = []
    for step, seed in enumerate(args.seeds):
        name = f"trial{trial.number:03d}_seed{seed}"
        status, reason = train(args, values, folder, name, seed)
        if status in INTERRUPTED:
            log.warning(f"stopped in {name}; the same command continues")
            return status if status > 0 else 128 - status
        found = score.read(folder / "runs" / name) if status == 0 else None
        if found is None or not np.isfinite(found):
            trial.set_user_attr("reason", reason if status else f"no finite {score.name}")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            log.warning(f"  {name} failed: {trial.user_attrs['reason']}")
            return 0
        scores.append(found)
        trial.set_user_attr("scores", scores)
        if step not in study.trials[trial.number].intermediate_values:  # of a trial that was stopped and goes on
            trial.report(float(np.mean(scores)), step)
        log.info(f"  seed {seed}: {score.name} {found:.5g}")
        if step + 1 < len(args.seeds) and trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            log.info("  pruned: below the median of the trials before it")
            return 0
    study.tell(trial, float(np.mean(scores)))
    return 0


def train(args: argparse.Namespace, values: dict[str, Any], folder: Path, name: str, seed: int) -> tuple[int, str]:
    """One training in a process of its own; a stopped one goes on. Its exit status, and the last line of its errors."""
    settings = [*args.set, *(f"{k}={v}" for k, v in values.items())]
    settings += [f"root={folder / 'runs'}", f"name={name}", f"seed={seed}"]
    words = [word for assignment in settings for word in ("--set", assignment)]
    status, errors = finish([sys.executable, "-m", "keep.train", "-opt", args.opt, *words, "--auto-resume"])
    lines = errors.strip().splitlines()
    return status, lines[-1] if lines else f"exit status {status}"


def finish(command: list[str]) -> tuple[int, str]:
    """Run a command to its end. Stop signals go to it, so that a training saves its state.

    Returns:
        its exit status, one of ``INTERRUPTED`` after a stop signal; and what it wrote to stderr.
    """
    received: list[int] = []
    before = {number: signal.signal(number, lambda n, _: received.append(n)) for number in SIGNALS}
    try:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

        def forward(number: int, _: Any) -> None:
            received.append(number)
            process.send_signal(number)

        for number in SIGNALS:
            signal.signal(number, forward)
        for number in list(received):  # before the process had started
            process.send_signal(number)
        _, errors = process.communicate()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    stopped = received and process.returncode not in INTERRUPTED
    return REQUEUE if stopped else process.returncode, errors
