"""Kill a training run many times; it must lose nothing.

    python -m scripts.soak.kills                         50 kills of a tiny stage I, some ten minutes on two cores
    python -m scripts.soak.kills --kills 5 --seed 3

A tiny run is trained once without interruption. Then the same run is started, killed with SIGKILL at a random moment,
resumed with ``--auto-resume``, killed again, and so on; the last start may finish. After every kill all checkpoints
must be complete, and the next start must resume from the newest. At the end weights, average, optimizers, random states
and records must equal those of the uninterrupted run, bit for bit.

There are three kinds of kills, drawn from the seed: while the process starts, while it steps, and while it writes a
checkpoint. The run has every kind of state: a discriminator, an average, revived codes, data workers, a warm-up, a
schedule, and validation that keeps the best weights.
"""  # fmt: skip

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keep.config import arguments
from keep.config.cli import Parser, run
from keep.data.video_io import write_video
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.tables import console_table
from scripts.soak.run_folder import check_checkpoints, differences, last_step, unfinished

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("starting", "stepping", "writing")
SHARES = (0.1, 0.45, 0.45)
SAVE_EVERY = 5
MARGIN = 4 * SAVE_EVERY  # steps after the last kill, so that no kill comes too late
PATIENCE = 300.0  # seconds without a step after which a process counts as hung


@dataclass
class Kill:
    """One start of the run and its kill.

    Attributes:
        kind: what the process should have been doing.
        resumed: the step from which it resumed; 0 for a new start; None where it was killed before it reported one.
        step: the last step in the records.
        saved: step of the newest checkpoint; 0 for none.
        in_write: whether an unfinished file remained: the kill interrupted a write.
        seconds: lifetime of the process.
        mistake: the fault found afterwards, or "".
    """

    kind: str
    resumed: int | None
    step: int
    saved: int
    in_write: bool
    seconds: float
    mistake: str = ""


def soak(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="soak_") as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        clips(work / "clips")
        begun = time.perf_counter()
        if status := start(args, work, "complete").wait():
            raise UserError(f"the run without kills ended with status {status}; see {work / 'complete.log'}")
        seconds_without_kills = time.perf_counter() - begun
        kills: list[Kill] = []
        for n in tqdm(range(args.kills), desc="kills", unit="kill"):
            kills.append(start_and_kill(args, work, rng, kills[-1].saved if kills else 0, args.kills - n))
            if kills[-1].mistake:
                break
        mistakes = [f"kill {n}: {k.mistake}" for n, k in enumerate(kills, 1) if k.mistake]
        if not mistakes:
            status = start(args, work, "killed", "--auto-resume").wait()
            mistakes += [f"the last start ended with status {status}"] if status else []
            mistakes += orphans(work)
            mistakes += differences(args.iters, work / "runs/complete", work / "runs/killed")
    report(args, kills, mistakes, seconds_without_kills)
    return 1 if mistakes else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(
        prog="scripts.soak.kills",
        description="Kill a training run, resume it, and compare it with an uninterrupted one.",
    )
    p.add_argument("--kills", type=arguments.count, default=50, help="number of kills (50)")
    p.add_argument(
        "--iters",
        type=arguments.whole(MARGIN + SAVE_EVERY + 1, 10**9),
        help="steps of the run; default: 20 for each kill",
    )
    p.add_argument("--seed", type=arguments.seed, default=0, help="seed of the kinds and moments of the kills (0)")
    p.add_argument("--work", type=Path, help="an empty folder to work in, which is kept; default: a temporary folder")
    p.add_argument("--out", type=Path, help="write the result to this file as JSON")
    args = p.parse_args(argv)
    args.iters = args.iters or 20 * args.kills + MARGIN
    if args.work and args.work.exists() and any(args.work.iterdir()):
        raise UserError(f"--work: {args.work} is not empty")
    return args


def clips(folder: Path) -> None:
    """Two videos of 12 frames, 40×40: a disc that moves."""
    folder.mkdir()
    y, x = np.mgrid[:40, :40]
    for n in range(2):
        frames = np.full((12, 40, 40, 3), 60 + 60 * n, np.uint8)
        for t, frame in enumerate(frames):
            frame[(y - 20) ** 2 + (x - 10 - t) ** 2 < 81] = (220, 160 - 90 * n, 120)
        write_video(folder / f"disc{n}.mkv", frames, fps=25, codec="ffv1")


def overrides(args: argparse.Namespace, work: Path, name: str) -> list[str]:
    return [
        f"name={name}", f"root={work / 'runs'}", "device=cpu", "threads=1",
        "model.net.image_size=32", "model.net.channels=8", "model.net.ch_mult=[1, 2]",
        "model.net.attn_resolutions=[16]", "model.net.latent_dim=8", "model.net.codebook_size=16",
        "model.discriminator.channels=8", f"model.gan_start={args.iters // 4}", "model.revive=3",
        f"data.train.root={work / 'clips'}", "data.train.size=32", "data.workers=1", "data.clips_per_step=1",
        f"data.val={{type: VideoClips, root: {work / 'clips'}, size: 32, max_frames: 1}}",
        "val.metrics=[PSNR]", "val.interval=50",
        f"train.iters={args.iters}", f"train.warmup={args.iters // 10}", "log.interval=1",
        "log.image_interval=1000000000", f"log.save_interval={SAVE_EVERY}", "log.keep_last=2",
    ]  # fmt: skip


def start(args: argparse.Namespace, work: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
    """Start the run as a user would; its output goes to ``NAME.log``."""
    command = [sys.executable, "-m", "keep.train", "-opt", str(ROOT / "options/tiny/stage1.yml"), *more]
    for assignment in overrides(args, work, name):
        command += ["--set", assignment]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (work / f"{name}.log").open("wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )  # fmt: skip


def start_and_kill(args: argparse.Namespace, work: Path, rng: random.Random, saved: int, pending: int) -> Kill:
    """Start the run, kill it at a moment drawn from ``rng``, and check what remains.

    Args:
        args: the command line.
        work: folder of both runs.
        rng: draws kind and moment.
        saved: step of the newest checkpoint before.
        pending: kills still to do, this one included; the remaining steps are divided among them.
    """
    kind = rng.choices(KINDS, SHARES)[0]
    last = args.iters - MARGIN
    target = min(last, saved + 1 + rng.randrange(max(1, 2 * (last - saved) // pending)))
    starting, moment = rng.uniform(0.0, 5.0), rng.random()
    folder = work / "runs/killed"
    begun = time.perf_counter()
    process = start(args, work, "killed", "--auto-resume")
    hung = not wait_for(process, folder, kind, target, starting)
    if kind == "stepping":
        time.sleep(moment * 0.05)
    elif kind == "writing":
        time.sleep(moment * 0.003)
    ended = process.poll()
    process.send_signal(signal.SIGKILL)
    process.wait()
    seconds = time.perf_counter() - begun
    log = (work / "killed.log").read_text(encoding="utf-8", errors="replace")
    resumed = resumed_at(log)
    found, mistake = check_checkpoints(folder)
    if ended is not None:
        mistake = f"the run ended by itself with status {ended}: {log.strip()[-300:]}"
    elif hung:
        mistake = f"no step for {PATIENCE:.0f} s"
    elif not mistake and resumed not in (None, saved):
        mistake = f"resumed from step {resumed}, but the newest checkpoint was of step {saved}"
    elif not mistake and found < saved:
        mistake = f"the newest checkpoint is of step {found}; before it was {saved}"
    return Kill(kind, resumed, last_step(folder), found, bool(unfinished(folder)), seconds, mistake)


def wait_for(process: subprocess.Popen[bytes], folder: Path, kind: str, target: int, starting: float) -> bool:
    """Wait for the moment of the kill, or until the run ends by itself.

    Returns:
        False if the run hangs.
    """
    begun = time.perf_counter()
    if kind == "starting":
        time.sleep(starting)
        return True
    # Until this process has truncated the records, those after the newest checkpoint are of the process before.
    old = {p.name for p in unfinished(folder)}
    while process.poll() is None and time.perf_counter() - begun < PATIENCE:
        reached = last_step(folder) >= target and has_written_since(folder, begun)
        if reached and (kind == "stepping" or any(p.name not in old for p in unfinished(folder))):
            return True
        time.sleep(0.0005)
    return process.poll() is not None


def has_written_since(folder: Path, since: float) -> bool:
    """Whether the records were written to after ``since`` (``time.perf_counter``)."""
    age = time.time() - (folder / "log.jsonl").stat().st_mtime
    return age < time.perf_counter() - since


def resumed_at(log: str) -> int | None:
    """The step from which the process reports to resume; 0 for a new start; None without such a report."""
    for line in log.splitlines():
        if line.startswith("resumed ") and " at step " in line:
            return int(line.rsplit(" ", 1)[1])
    return 0 if "clips a step" in log else None


def orphans(work: Path) -> list[str]:
    """Processes that survived a kill: data workers, which must end when their parent has ended."""
    for _ in range(100):
        alive = [p for p in Path("/proc").glob("[0-9]*") if str(work / "runs") in command_line(p)]
        if not alive:
            return []
        time.sleep(0.2)
    return [f"process {p.name} is still running: {command_line(p)[:80]}" for p in alive]


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def report(args: argparse.Namespace, kills: list[Kill], mistakes: list[str], seconds_without_kills: float) -> None:
    """Print the result, and write it to ``--out``."""
    rows = []
    for kind in (*KINDS, "all"):
        group = [k for k in kills if kind in (k.kind, "all")]
        rows.append(
            {
                "killed while": kind,
                "kills": len(group),
                "during a write": sum(k.in_write for k in group),
                "no checkpoint yet": sum(k.saved == 0 for k in group),
                "intact checkpoint": sum(k.saved > 0 and not k.mistake for k in group),
                "mistakes": sum(bool(k.mistake) for k in group),
            }
        )
    print(console_table(rows, list(rows[0])))
    print(
        f"{len(kills)} kills, seed {args.seed}; {args.iters} steps, saved every {SAVE_EVERY}; resumed at "
        f"{len({k.resumed for k in kills} - {0, None})} different steps; {seconds_without_kills:.0f} s without kills, "
        f"{sum(k.seconds for k in kills):.0f} s with kills"
    )
    print("\n".join(mistakes[:20]) or "the killed run equals the uninterrupted run bit for bit")
    if args.out:
        result = {
            "passed": not mistakes, "mistakes": mistakes, "seed": args.seed, "iters": args.iters,
            "save_every": SAVE_EVERY, "table": rows, "kills": [asdict(k) for k in kills],
        }  # fmt: skip
        write_file(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run(soak))
