"""What a sweep leaves: ``results.json``, ``table.md``, ``best.yml`` and ``sweep.png``."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from keep.config.reading import load, to_yaml
from keep.config.schema import TrainConfig
from keep.evaluation.statistics import Interval, bootstrap, paired
from keep.training.sweep.params import Param, Score
from keep.utils.figures import write_figure
from keep.utils.io import write_file
from keep.utils.logging import log
from keep.utils.style import PALETTE


def write_results(folder: Path, study: Any, params: list[Param], score: Score, args: argparse.Namespace) -> None:
    """Write all files; best.yml and the figure need a trial with a score."""
    sign = -1 if score.higher_is_better else 1
    rows = [row_of(trial) for trial in study.get_trials(deepcopy=False)]
    done = sorted((row for row in rows if row["state"] == "complete"), key=lambda row: sign * row["mean"])
    for row in done:
        row["to_best"] = difference(done[0], row)
    order = [*done, *(row for row in rows if row["state"] != "complete")]
    write_file(folder / "results.json", json.dumps({**study.user_attrs["sweep"], "trials": order}, indent=1) + "\n")
    table = markdown(order, params, score, args.seeds)
    write_file(folder / "table.md", table)
    log.info("\n" + table)
    if done:
        best = [f"{key}={value}" for key, value in done[0]["params"].items()]
        write_file(folder / "best.yml", to_yaml(load(args.opt, [*args.set, *best], TrainConfig)))
        plot(folder / "sweep.png", done, params, score)
    log.info(f"written to {folder}: table.md, results.json" + ", best.yml, sweep.png" * bool(done))


def row_of(trial: Any) -> dict[str, Any]:
    """A trial as plain data, with the mean over its seeds and a 95 % bootstrap interval; null with fewer than two."""
    scores = trial.user_attrs.get("scores", [])
    interval = bootstrap(np.array(scores)) if scores else Interval(np.nan, np.nan, np.nan, 0)
    numbers = {k: float(v) if np.isfinite(v) else None for k, v in vars(interval).items() if k != "clips"}
    return {
        "trial": trial.number, "params": dict(trial.params), "state": trial.state.name.lower(), "scores": scores,
        **numbers, "reason": trial.user_attrs.get("reason"),
    }  # fmt: skip


def difference(best: dict[str, Any], row: dict[str, Any]) -> str:
    """The trial minus the best one, seed by seed: both trained with the same seeds."""
    if row is best:
        return "best"
    found = paired(np.array(row["scores"]), np.array(best["scores"]))
    interval = f" [{found.low:+.4g}, {found.high:+.4g}]" if np.isfinite(found.low) else ""
    return f"{found.mean:+.4g}{interval}"


def markdown(rows: list[dict[str, Any]], params: list[Param], score: Score, seeds: list[int]) -> str:
    """The trials, the best first; failed and pruned ones last."""
    keys = [param.key for param in params]
    better = "higher" if score.higher_is_better else "lower"
    lines = [
        f"{score.name}, {better} is better; mean over {len(seeds)} seeds, 95 % bootstrap interval over seeds (with few "
        "seeds a lower bound of the uncertainty), difference to the best trial seed by seed.\n",
        f"| trial | {' | '.join(keys)} | {score.name} | interval | to the best | state |",
        "| --: " * (len(keys) + 3) + "| :-- | :-- |",
    ]
    for row in rows:
        values = " | ".join(_short(row["params"].get(key)) for key in keys)
        mean = "" if row["mean"] is None else f"{row['mean']:.5g}"
        interval = "" if row["low"] is None else f"{row['low']:.5g} … {row['high']:.5g}"
        state = row["state"] + (f": {row['reason']}" if row["reason"] else "")
        lines.append(f"| {row['trial']} | {values} | {mean} | {interval} | {row.get('to_best', '')} | {state} |")
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def plot(path: Path, rows: list[dict[str, Any]], params: list[Param], score: Score) -> None:
    """The score over each option, a panel an option: means and intervals over seeds, and the score of every seed."""

    def draw(figure: Any) -> None:
        for i, param in enumerate(params):
            axes = figure.add_subplot(1, len(params), i + 1)
            x = [param.choices.index(v) if param.choices else v for v in (row["params"][param.key] for row in rows)]
            mean = np.array([row["mean"] for row in rows])
            ends = np.array([[mean[n] if row[end] is None else row[end] for n, row in enumerate(rows)]
                             for end in ("low", "high")])  # fmt: skip
            for place, row in zip(x, rows, strict=True):
                axes.plot([place] * len(row["scores"]), row["scores"], ".", color=PALETTE[1], alpha=0.5)
            axes.errorbar(x, mean, np.abs(ends - mean), fmt="o", color=PALETTE[0], capsize=3)
            if param.log:
                axes.set_xscale("log")
            if param.choices:
                axes.set_xticks(range(len(param.choices)), param.choices)
            axes.set(xlabel=param.key, ylabel=score.name if i == 0 else "")
            axes.grid(which="major")

    write_figure(path, draw, size=(4.4 * len(params), 3.6))
