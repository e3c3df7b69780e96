"""Rehearse the paper's training: the three shipped YAMLs, unchanged but for sizes, on drawn faces, in minutes.

    python -m scripts.rehearse_paper                 # one process, then two; prints a table
    python -m scripts.rehearse_paper --out FOLDER    # also keeps the data, the runs and table.md

The three stages of ``options/train/`` run in order: in one process, then in two Gloo processes, on the CPU. Networks
are narrow, frames have 64×64 pixels, and the phases follow each other within a few steps. GMFlow and VGG16 have random
weights from files that the script writes. Checked are, for every stage:

- it starts from the weights of the stage before;
- every tensor of a part that should train changes, and nothing else does;
- all losses are finite, in every step;
- two processes have the losses of one in every step, up to rounding.

The exit status is 2 and a line says why, if one of these fails.
"""  # fmt: skip

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from keep.config.cli import Parser, run
from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.training.run import build_run
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.tables import markdown_table
from keep.utils.weight_files import load as read_weights
from scripts.drawn_vfhq import draw_vfhq, write_random_networks

ROOT = Path(__file__).resolve().parents[1]
SIZE, CLIPS, FRAMES = 64, 4, 24
STEPS, PHASE = 8, 3  # steps of a stage; the step at which its second phase begins
VQGAN = [
    f"model.net.image_size={SIZE}", "model.net.channels=8", "model.net.ch_mult=[1, 2, 2]", "model.net.res_blocks=1",
    "model.net.latent_dim=16", "model.net.codebook_size=32", "model.net.norm_groups=4",
]  # fmt: skip
KEEP = [
    *VQGAN, "model.net.transformer_width=32", "model.net.transformer_heads=2", "model.net.transformer_layers=2",
    "model.net.transformer_mlp_width=32", "model.net.kalman_blocks=1", "model.net.kalman_heads=2",
    "model.net.kalman_head_dim=8", "model.net.kalman_gain_blocks=1", "model.net.cft_scales=[16, 32]",
    "model.net.cfa_scales=[16]", "model.net.cfa_heads=2", "model.net.cfa_head_dim=8",
]  # fmt: skip
TOLERANCE = 1e-4
"""Largest relative difference of a loss between one and two processes."""

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Stage:
    """One stage of the paper.

    Attributes:
        name: of the run, as the YAML has it.
        sizes: overrides of widths, phases and clips a step.
        trained: parts of the network that should change.
        start: slot of ``pretrained`` → run whose weights fill it.
        same: part of the network → part of the stage before that it starts as.
        compared: steps whose losses must be those of one process. On a CPU each process has its own batch statistics
            in the discriminator of stage I, so there it is the steps before the adversarial phase.
    """

    name: str
    sizes: Sequence[str]
    trained: frozenset[str]
    start: Mapping[str, str] = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)
    compared: int = STEPS


STAGES = (
    Stage(
        "stage1_vqgan",
        [*VQGAN, f"model.gan_start={PHASE}", "model.discriminator.channels=8", "model.discriminator.layers=2"],
        frozenset({"encoder", "codebook", "generator"}),
        compared=PHASE,
    ),
    Stage(
        "stage2_kalman",
        [*KEEP, f"model.filter_start={PHASE}"],
        frozenset({"lq_encoder", "code_transformer", "kalman_filter"}),
        {"vqgan": "stage1_vqgan"},
        {"hq_encoder": "encoder", "lq_encoder": "encoder", "codebook": "codebook", "generator": "generator"},
    ),
    Stage(
        "stage3_video",
        [*KEEP, f"model.gan_start={PHASE}", "model.discriminator.channels=4"],
        frozenset({"cft", "cfa"}),
        {"keep": "stage2_kalman"},
        {
            part: part
            for part in ("lq_encoder", "hq_encoder", "kalman_filter", "code_transformer", "codebook", "generator")
        },
    ),
)


@dataclass
class Outcome:
    """What a stage's run did.

    Attributes:
        before: weights of network and discriminator at the start.
        after: the same at the end.
        average: averaged weights of the network, which the next stage starts from.
        losses: of every step.
        seconds: that the command took.
    """

    before: State
    after: State
    average: State
    losses: list[dict[str, float | None]]
    seconds: float


def overrides(stage: Stage, folder: Path, processes: int) -> list[str]:
    """Sizes, places and the number of steps; everything else is as shipped."""
    data, root = folder / "data", folder / f"runs_{processes}"
    common = [
        f"root={root}", "device=cpu", "threads=1", "data.workers=1", f"train.iters={STEPS}", "log.interval=1",
        "data.clips_per_step=2", f"data.train.root={data / 'train'}", f"data.train.landmarks={data / 'landmarks'}",
        f"data.train.size={SIZE}", f"data.val.root={data / 'val'}", f"data.val.landmarks={data / 'landmarks'}",
        f"data.val.size={SIZE}", f"log.save_interval={STEPS}", f"val.interval={STEPS}",
    ]  # fmt: skip
    files = {"gmflow": folder / "weights/gmflow_random.pth", "vgg": folder / "weights/vgg16_random.pth"}
    if stage.name != "stage2_kalman":
        common += [f"model.perceptual.weights={files['vgg']}", f"val.metrics.2.weights={files['vgg']}"]
    if stage.name != "stage1_vqgan":
        common += [f"model.net.flow.weights={files['gmflow']}", "data.train.clip_length=3", "data.val.max_frames=3"]
    # Two processes start every stage from the files of one process, so that differences do not add up.
    files_of = folder / "runs_1"
    start = [f"pretrained.{slot}={files_of / before}/models/net_latest.pth" for slot, before in stage.start.items()]
    return [*stage.sizes, *common, *start]


def rehearse(stage: Stage, folder: Path, processes: int) -> Outcome:
    """Run one stage through the command line, as a user does."""
    options, changes = ROOT / f"options/train/{stage.name}.yml", overrides(stage, folder, processes)
    recipe = build_run(load(options, changes, TrainConfig)).recipe
    before = {k: v.clone() for k, v in whole_state(recipe).items()}
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command += ["keep.train", "-opt", str(options), *(word for change in changes for word in ("--set", change))]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    run_folder = folder / f"runs_{processes}" / stage.name
    if done.returncode:
        raise UserError(f"{stage.name}, {processes} processes: {done.stderr.strip() or done.stdout.strip()}")
    content = read_weights(run_folder / "models/net_latest.pth")
    after = dict(content["params"])
    discriminator = run_folder / "models/net_d_latest.pth"
    if discriminator.is_file():
        after |= {f"discriminator.{k}": v for k, v in read_weights(discriminator)["params"].items()}
    records = [json.loads(line) for line in (run_folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [{k: v for k, v in row.items() if k.startswith("loss/")} for row in records]
    return Outcome(before, after, content["params_ema"], [row for row in losses if row], time.perf_counter() - start)


def whole_state(recipe: torch.nn.Module) -> dict[str, Tensor]:
    """Weights of the network, and those of the discriminator with a prefix."""
    state = {k.removeprefix("net."): v for k, v in recipe.state_dict().items() if k.startswith("net.")}
    return state | {k: v for k, v in recipe.state_dict().items() if k.startswith("discriminator.")}


def check(stage: Stage, outcome: Outcome, previous: Outcome | None) -> list[list[str | int | float]]:
    """Raise UserError unless the stage did what it should; rows of the table otherwise: part, tensors, moved."""
    for part, source in stage.same.items() if previous else ():
        for name, value in part_of(outcome.before, part).items():
            if previous and not torch.equal(value, previous.average[f"{source}.{name}"]):
                raise UserError(f"{stage.name}: {part}.{name} does not start as {source}.{name} of the stage before")
    if len(outcome.losses) != STEPS:
        raise UserError(f"{stage.name}: {len(outcome.losses)} of {STEPS} steps were recorded")
    for step, row in enumerate(outcome.losses, 1):
        if bad := [name for name, value in row.items() if value is None]:
            raise UserError(f"{stage.name}: step {step}: not finite: {', '.join(bad)}")
    rows: list[list[str | int | float]] = []
    for part in dict.fromkeys(name.split(".")[0] for name in outcome.before):
        before, after = part_of(outcome.before, part), part_of(outcome.after, part)
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        trains = part in stage.trained or part == "discriminator"
        still = [name for name in before if name not in changed and before[name].is_floating_point()]
        if trains and still:
            raise UserError(f"{stage.name}: {part} should train, and {', '.join(still[:3])} stayed the same")
        if not trains and changed:
            raise UserError(f"{stage.name}: {part} is frozen, and {', '.join(changed[:3])} changed")
        rows.append([part, "trains" if trains else "frozen", len(before), len(changed), moved(before, after)])
    return rows


def part_of(state: State, part: str) -> dict[str, Tensor]:
    return {name.partition(".")[2]: value for name, value in state.items() if name.split(".")[0] == part}


def moved(before: State, after: State) -> float:
    """Length of the way that weights went, over the length of the weights."""
    way = sum(((after[k] - before[k]).double() ** 2).sum() for k in before if before[k].is_floating_point())
    size = sum((before[k].double() ** 2).sum() for k in before if before[k].is_floating_point())
    return float((torch.as_tensor(way) / torch.as_tensor(size).clamp(min=1e-12)).sqrt())


def difference(stage: Stage, one: Outcome, two: Outcome) -> float:
    """Largest relative difference of a loss between two runs of a stage."""
    steps = list(zip(one.losses, two.losses, strict=True))[: stage.compared]
    pairs = [(a[name] or 0.0, b[name] or 0.0) for a, b in steps for name in a]
    return max(abs(a - b) / max(abs(a), abs(b), 1e-3) for a, b in pairs)


def rehearsal(folder: Path) -> str:
    """Run everything below ``folder`` and return the table."""
    draw_vfhq(folder / "data", CLIPS, FRAMES, SIZE + SIZE // 2)
    write_random_networks(folder / "weights")
    outcomes: dict[tuple[str, int], Outcome] = {}
    rows: list[list[str | int | float]] = []
    for processes in (1, 2):
        previous = None
        for stage in STAGES:
            print(f"{stage.name}, {processes} process{'es' * (processes > 1)} …", file=sys.stderr, flush=True)
            outcome = rehearse(stage, folder, processes)
            parts = check(stage, outcome, previous)
            outcomes[stage.name, processes] = outcome
            previous = outcomes[stage.name, 1]
            if processes == 1:
                rows += [[stage.name, *part] for part in parts]
    for stage in STAGES:
        apart = difference(stage, outcomes[stage.name, 1], outcomes[stage.name, 2])
        print(f"{stage.name}: losses of two processes differ by {apart:.1e} from those of one", file=sys.stderr)
        if apart > TOLERANCE:
            raise UserError(f"{stage.name}: losses of two processes differ by {apart:.1e} from those of one")
    columns = ["stage", "part", "role", "tensors", "changed", "moved by"]
    table = markdown_table([dict(zip(columns, [*row[:-1], f"{row[-1]:.2%}"], strict=True)) for row in rows], columns)
    seconds = sum(outcome.seconds for outcome in outcomes.values())
    return f"{table}\n\nSix runs, {seconds:.0f} s; all losses finite; two processes train as one.\n"


def command(argv: Sequence[str] | None) -> None:
    p = Parser(prog="scripts.rehearse_paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, metavar="FOLDER", help="a new folder for the data, the runs and table.md")
    args = p.parse_args(argv)
    if args.out is not None and args.out.exists():
        raise UserError(f"--out: {args.out} exists; name a new folder")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        table = rehearsal(folder.resolve())
        if args.out is not None:
            write_file(folder / "table.md", table)
    print(table)


def main(argv: Sequence[str] | None = None) -> int:
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
