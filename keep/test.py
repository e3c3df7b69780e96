"""Restore and score clips.

    python -m keep.test -opt options/test/vfhq_heavy.yml
"""  # fmt: skip

import csv
import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import keep
from keep import cli
from keep.config import TestConfig, to_yaml
from keep.data.video_io import write_video
from keep.evaluate import Table, evaluate
from keep.logger import log, to_console
from keep.registry import build
from keep.runtime import prepare
from keep.visual import console_table, contact_sheet, gain_figure, markdown_table, side_by_side


def test(config: TestConfig) -> Table:
    """Run ``keep.test``: table, per-frame values, side-by-side videos and pictures in ``results/NAME``.

    The folder is there whole or not at all; older results of the same name are replaced.
    """
    device = prepare(config.device, config.threads, config.seed)
    dataset = build(config.data.test)
    metrics = build(config.metrics)
    restorers = {name: spec.build().to(device) for name, spec in config.restorers.items()}
    final = config.root / config.name
    folder = config.root / f".{config.name}.unfinished"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "options.yml").write_text(to_yaml(config), encoding="utf-8")

    def look(i: int, name: str, panels: Mapping[str, torch.Tensor]) -> None:
        if i < config.save.clips:
            save_pictures(folder, name, panels, restorers, config.save.crf)

    log.info(f"{config.name}: {len(dataset)} clips, {', '.join(restorers)}, on {device}")
    try:
        table = evaluate(restorers, dataset, metrics, device, config.seed, look, config.name)
        write_tables(folder, table, metrics, {k: r.describe() for k, r in restorers.items()})
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    log.info(f"in {final}: table.md, frames.csv, results.json, videos and pictures")
    return table


test.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  (pytest: this is no test)


def save_pictures(
    folder: Path, name: str, panels: Mapping[str, torch.Tensor], restorers: Mapping[str, Any], crf: int
) -> None:
    """``CLIP.mp4`` and ``CLIP.png``, all panels side by side; ``CLIP_RESTORER_gain.png`` where there are gains."""
    name = name.replace("/", "_")
    clips = {k: v.permute(0, 2, 3, 1).numpy() for k, v in panels.items()}
    write_video(folder / f"{name}.mp4", side_by_side(clips), fps=25, crf=crf)
    contact_sheet(clips, folder / f"{name}.png")
    for key, restorer in restorers.items():
        if getattr(restorer, "gains", None) is not None:
            gain_figure(restorer.gains.numpy(), clips["truth"], folder / f"{name}_{key.replace('/', '_')}_gain.png")


def rows_of(table: Table, metrics: Sequence[Any]) -> list[dict[str, Any]]:
    """One row a restorer: means over clips, and frames a second."""
    return [
        {"restorer": r, **{m.name: table.mean(r, m.name) for m in metrics}, "frames/s": table.frames_per_second(r)}
        for r in table.restorers()
    ]


def write_tables(folder: Path, table: Table, metrics: Sequence[Any], about: Mapping[str, str]) -> None:
    """``table.md``, ``frames.csv`` (every frame's values), ``results.json`` (all of it); and the console table."""
    rows = rows_of(table, metrics)
    better = {m.name: m.higher_is_better for m in metrics}
    columns = {"restorer": None, **better, "frames/s": None}
    (folder / "table.md").write_text(markdown_table(rows, columns), encoding="utf-8")
    with (folder / "frames.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["restorer", "clip", "frame", *better])
        for score in table.scores:
            for t, values in enumerate(zip(*(score.per_frame[m] for m in better), strict=True)):
                writer.writerow([score.restorer, score.clip, t, *(f"{v:.6f}" for v in values)])
    clips = [
        {
            "clip": s.clip,
            "restorer": s.restorer,
            "seconds": s.seconds,
            "degradation": json.loads(s.degradation) if s.degradation else None,
            **{k: v.tolist() for k, v in s.per_frame.items()},
        }
        for s in table.scores
    ]
    content = {
        "version": keep.__version__,
        "torch": torch.__version__,
        "restorers": about,
        "table": rows,
        "clips": clips,
    }
    (folder / "results.json").write_text(json.dumps(plain(content), indent=1, allow_nan=False), encoding="utf-8")
    log.info("\n" + console_table(rows, columns))
    for name, text in about.items():
        log.info(f"  {name}: {text}")


def plain(value: Any) -> Any:
    """``value`` for JSON, which has no infinity: the PSNR of two equal frames becomes the text "inf"."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def command(argv: Sequence[str] | None) -> None:
    args = cli.parser("keep-test", "Restore and score clips from an options file.").parse_args(argv)
    config = cli.read_options(args, TestConfig)
    if config is not None:
        to_console()
        test(config)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
