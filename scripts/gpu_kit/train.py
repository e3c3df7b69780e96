"""Train an options file in a given time: a few steps are timed, and the schedule is fitted to the rest.

    python -m scripts.gpu_kit.train options/small/stage1.yml --seconds 120 --out results --set data.train.root=faces.zip

``train.iters`` becomes the number of steps that fit. Steps at which a phase begins (``gan_start``, ``filter_start``,
milestones, warm-up) move in proportion, so the run has the same course. There is no validation: nobody has timed it.
SIGTERM saves and ends the run, as in keep.train (exit status 75). ``train.json`` has what was measured and planned.
"""  # fmt: skip

import argparse
import json
import signal
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

START = time.monotonic()

import torch  # noqa: E402, the clock starts before

from keep.config import arguments  # noqa: E402
from keep.config.cli import Parser, run  # noqa: E402
from keep.config.reading import load  # noqa: E402
from keep.config.registry import build  # noqa: E402
from keep.config.schema import TrainConfig  # noqa: E402
from keep.training import trainer  # noqa: E402
from keep.training.guards import out_of_memory  # noqa: E402
from keep.training.prefetch import step_batches  # noqa: E402
from keep.training.run import Run, build_run, check_data  # noqa: E402
from keep.utils.errors import UserError  # noqa: E402
from keep.utils.io import write_file  # noqa: E402
from keep.utils.logging import to_console  # noqa: E402
from keep.utils.signals import REQUEUE, Stopped  # noqa: E402

TIMED = 0.06, 12.0
"""Share of the time for timing, and the most seconds."""
USED = 0.92
"""Share of the remaining time that the schedule is planned for; the rest is for saving and for slower steps."""
SAVE_SECONDS = 20.0
"""Seconds between two checkpoints."""
NEVER = 10**9
"""Interval of what should not happen before the last step."""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    to_console()
    off = ["data.val=null", "val.metrics=[]", "log.best_metric=null", "log.safetensors=true"]
    config = load(args.options, [*args.set, *off], TrainConfig)
    spent = time.monotonic() - START
    endless = load(args.options, [*args.set, *off, f"train.iters={NEVER}"], TrainConfig)
    timed, starting = time_phases(endless, min(TIMED[0] * args.seconds, TIMED[1]))
    changes, total = fit(config, timed, USED * (args.seconds - starting - (time.monotonic() - START)))
    row = {
        "run": config.name, "s to import": round(spent, 1), "s to start": round(starting, 1),
        **{f"s a step, {phase}": round(s, 4) for phase, (_, s) in timed.items()},
        "steps": total, "steps of the file": config.train.iters,
    }  # fmt: skip
    note(args.out, row)
    try:
        trainer.train(load(args.options, [*args.set, *off, *changes], TrainConfig))
    except Stopped as stopped:
        note_end(args.out, row, str(stopped))
        print(f"stopped: {stopped}", file=sys.stderr)
        return REQUEUE
    note_end(args.out, row, f"finished after {time.monotonic() - START:.0f} of {args.seconds:.0f} s")
    return 0


def note_end(out: Path, row: Mapping[str, Any], end: str) -> None:
    """Write how the run ended; a signal to stop does not interrupt it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        note(out, {**row, "end": end})
    finally:
        signal.signal(signal.SIGTERM, before)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__
    p = Parser(prog="scripts.gpu_kit.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("options", type=Path, help="options file")
    p.add_argument(
        "--seconds", type=arguments.number(0, 1e9, above=True), required=True, help="seconds that all of it may take"
    )
    p.add_argument("--out", type=Path, required=True, help="folder of train.json")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override an option")
    args = p.parse_args(argv)
    if args.seconds <= 0:
        raise UserError("--seconds must be more than 0")
    return args


def note(out: Path, row: Mapping[str, Any]) -> None:
    write_file(out / "train.json", json.dumps({"rows": [row]}, indent=1) + "\n")


def time_phases(config: TrainConfig, seconds: float) -> tuple[dict[str, tuple[int, float]], float]:
    """Time real steps, data included, of a run that is then dropped.

    Args:
        config: of the run, with more steps than there is time for.
        seconds: to spend on all phases together, after the first step; each phase takes at least three steps.

    Returns:
        phase → its first step and seconds a step; and the seconds from the start to the end of the first step.
    """
    begun = time.monotonic()
    run = build_run(config)
    data = build(config.data.train)
    check_data(run.recipe, data, None)
    phases = dict(sorted(run.recipe.phases().items(), key=lambda item: item[1]))
    try:
        with closing(cast(Generator[Any], step_batches(run, data))) as batches:  # closing ends the data workers
            take_step(run, batches)
            starting = time.monotonic() - begun
            each = seconds / len(phases)
            return {name: (step, time_steps(run, batches, step, each)) for name, step in phases.items()}, starting
    except torch.OutOfMemoryError as error:
        raise UserError(out_of_memory(run, error)) from error


def time_steps(run: Run, batches: Iterator[Any], step: int, seconds: float) -> float:
    """Seconds of a step of the phase that begins at ``step``: the mean over the second half of the time."""
    moments = [time.monotonic()]
    run.step = step
    while moments[-1] - moments[0] < seconds or len(moments) < 4:
        take_step(run, batches)
        moments.append(time.monotonic())
    later = moments[len(moments) // 2 :]  # the first steps may wait for kernels, compilation and data workers
    return (later[-1] - later[0]) / (len(later) - 1)


def take_step(run: Run, batches: Iterator[Any]) -> None:
    batch, _ = next(batches)
    trainer.train_step(run, batch)
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)


def fit(config: TrainConfig, timed: Mapping[str, tuple[int, float]], seconds: float) -> tuple[list[str], int]:
    """Overrides with which the run takes ``seconds``, and its number of steps.

    Args:
        config: the options as they are.
        timed: phase → its first step in ``config`` and seconds a step, in order.
        seconds: that the steps may take.
    """
    iters = config.train.iters
    starts = [min(first, iters) for first, _ in timed.values()]
    shares = [(b - a) / iters for a, b in pairwise([*starts, iters])]
    mean = sum(share * s for share, (_, s) in zip(shares, timed.values(), strict=True))
    total = max(1, int(seconds / mean))
    slowest = max(s for _, s in timed.values())

    def scaled(step: int) -> int:
        return round(step * total / iters)

    changes = [
        f"train.iters={total}",
        f"train.warmup={scaled(config.train.warmup)}",
        f"log.save_interval={max(1, int(SAVE_SECONDS / slowest))}",
        f"log.interval={max(1, min(config.log.interval, total // 20))}",
        f"log.image_interval={NEVER}",
    ]
    for name in ("gan_start", "filter_start"):
        if config.model.options.get(name):
            changes.append(f"model.{name}={scaled(config.model.options[name])}")
    if milestones := config.train.schedule.options.get("milestones"):
        changes.append(f"train.schedule.milestones={[scaled(step) for step in milestones]}")
    return changes, total


if __name__ == "__main__":
    sys.exit(run(main))
