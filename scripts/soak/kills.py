"""Kill a training run again and again; it must lose nothing.

    python -m scripts.soak.kills                         50 kills of a tiny stage I, some ten minutes on two cores
    python -m scripts.soak.kills --kills 5 --seed 3

A tiny run is trained once from end to end. Then the same run is started anew, killed with SIGKILL at a random moment,
started again with ``--auto-resume``, killed again, and so on; the last start may finish. After every kill each
checkpoint in the folder must be whole, the next start must go on from the newest, and in the end weights, average,
optimizers and random states must equal those of the run that was never killed, bit for bit, and so must its records.

Kills come in three kinds, drawn from the seed: while the process starts, while it steps, and while it writes a
weight_files. The run has all that a run can lose: a discriminator, an average, revived codes, data workers, a warm-up,
a schedule and validation that keeps the best weights.
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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from keep.config.cli import run
from keep.data.video_io import write_video
from keep.utils import weight_files
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.visual import console_table

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("starting", "stepping", "writing")
SHARES = (0.1, 0.45, 0.45)
SAVE_EVERY = 5
MARGIN = 4 * SAVE_EVERY  # steps that the last start has left, so that no kill comes too late
PATIENCE = 300.0  # seconds without a step after which a start counts as hung


@dataclass
class Kill:
    """One start of the run, and how it ended.

    Attributes:
        kind: what the process was meant to be doing.
        resumed: the step it said it went on from; 0 afresh; None where it did not come that far.
        step: the last step in its records.
        saved: the newest checkpoint it left; 0 for none.
        in_write: whether an unfinished file was left: the kill fell into a write.
        seconds: of its life.
        mistake: what was wrong afterwards; "" for nothing.
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
        if status := start(args, work, "whole").wait():
            raise UserError(f"the run without kills ended with status {status}; see {work / 'whole.log'}")
        whole_seconds = time.perf_counter() - begun
        kills: list[Kill] = []
        for n in tqdm(range(args.kills), desc="kills", unit="kill"):
            kills.append(one_life(args, work, rng, kills[-1].saved if kills else 0, args.kills - n))
            if kills[-1].mistake:
                break
        mistakes = [f"kill {n}: {k.mistake}" for n, k in enumerate(kills, 1) if k.mistake]
        if not mistakes:
            status = start(args, work, "killed", "--auto-resume").wait()
            mistakes += [f"the last start ended with status {status}"] if status else []
            mistakes += orphans(work)
            mistakes += differences(args, work / "runs/whole", work / "runs/killed")
    report(args, kills, mistakes, whole_seconds)
    return 1 if mistakes else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="scripts.soak.kills", description="kill a training run, resume it, compare")
    p.add_argument("--kills", type=int, default=50)
    p.add_argument("--iters", type=int, help="steps of the run; by default 20 a kill")
    p.add_argument("--seed", type=int, default=0, help="of the kinds and moments of the kills")
    p.add_argument("--work", type=Path, help="an empty folder to work in and keep; by default a temporary one")
    p.add_argument("--out", type=Path, help="write the result to this file as JSON")
    args = p.parse_args(argv)
    args.iters = args.iters or 20 * args.kills + MARGIN
    if args.kills < 1 or args.iters <= MARGIN + SAVE_EVERY:
        raise UserError(f"--kills must be at least 1, --iters more than {MARGIN + SAVE_EVERY}")
    if args.work and args.work.exists() and any(args.work.iterdir()):
        raise UserError(f"--work: {args.work} is not empty")
    return args


# --- the run ----------------------------------------------------------------------------------------------------


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
        f"data.train.root={work / 'clips'}", "data.train.size=32", "data.workers=1", "data.batch_size=1",
        f"data.val={{type: VideoClips, root: {work / 'clips'}, size: 32, max_frames: 1}}",
        "val.metrics=[PSNR]", "val.interval=50",
        f"train.iters={args.iters}", f"train.warmup={args.iters // 10}", "log.interval=1",
        "log.image_interval=1000000000", f"log.save_interval={SAVE_EVERY}", "log.keep_last=2",
    ]  # fmt: skip


def start(args: argparse.Namespace, work: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
    """The run as a user would start it; what it says goes to ``NAME.log``."""
    command = [sys.executable, "-m", "keep.train", "-opt", str(ROOT / "options/tiny/stage1.yml"), *more]
    for assignment in overrides(args, work, name):
        command += ["--set", assignment]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (work / f"{name}.log").open("wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )  # fmt: skip


# --- one kill ---------------------------------------------------------------------------------------------------


def one_life(args: argparse.Namespace, work: Path, rng: random.Random, saved: int, left: int) -> Kill:
    """Start the run, kill it at a moment drawn from ``rng``, and look at what it left.

    Args:
        args: the command line's.
        work: the folder of both runs.
        rng: draws kind and moment.
        saved: the newest checkpoint before.
        left: kills still to come, this one included: the steps that are left are shared out over them.
    """
    kind = rng.choices(KINDS, SHARES)[0]
    last = args.iters - MARGIN
    target = min(last, saved + 1 + rng.randrange(max(1, 2 * (last - saved) // left)))
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
    said = (work / "killed.log").read_text(encoding="utf-8", errors="replace")
    resumed = resumed_at(said)
    found, mistake = look(folder)
    if ended is not None:
        mistake = f"the run ended by itself with status {ended}: {said.strip()[-300:]}"
    elif hung:
        mistake = f"no step for {PATIENCE:.0f} s"
    elif not mistake and resumed not in (None, saved):
        mistake = f"went on from step {resumed}, but the newest checkpoint was of step {saved}"
    elif not mistake and found < saved:
        mistake = f"the newest checkpoint is of step {found}; before it was {saved}"
    return Kill(kind, resumed, last_step(folder), found, bool(unfinished(folder)), seconds, mistake)


def wait_for(process: subprocess.Popen[bytes], folder: Path, kind: str, target: int, starting: float) -> bool:
    """Return at the moment of the kill, or when the run has ended by itself; False when it hangs."""
    begun = time.perf_counter()
    if kind == "starting":
        time.sleep(starting)
        return True
    # Records after the newest checkpoint are the last process's until this one has cut them back.
    old = {p.name for p in unfinished(folder)}
    while process.poll() is None and time.perf_counter() - begun < PATIENCE:
        reached = last_step(folder) >= target and began(folder, begun)
        if reached and (kind == "stepping" or any(p.name not in old for p in unfinished(folder))):
            return True
        time.sleep(0.0005)
    return process.poll() is not None


def began(folder: Path, since: float) -> bool:
    """Whether the records were written to in this life."""
    age = time.time() - (folder / "log.jsonl").stat().st_mtime
    return age < time.perf_counter() - since


def last_step(folder: Path) -> int:
    """The step of the last whole line of ``log.jsonl``; 0 where there is none."""
    try:
        with (folder / "log.jsonl").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return 0


def unfinished(folder: Path) -> list[Path]:
    """Files that a checkpoint is being written to."""
    return [p for part in ("models", "training_states") for p in (folder / part).glob(".*")]


def resumed_at(said: str) -> int | None:
    """The step from which the process said it goes on; 0 when it started afresh; None when it did not say."""
    for line in said.splitlines():
        if line.startswith("resumed ") and " at step " in line:
            return int(line.rsplit(" ", 1)[1])
    return 0 if "clips a step" in said else None


def look(folder: Path) -> tuple[int, str]:
    """The newest training state in the folder (0: none yet), and what is wrong with any checkpoint there."""
    newest = 0
    # Hidden names are files that a kill left unfinished.
    for path in [*(folder / "training_states").glob("[!.]*.state"), *(folder / "models").glob("[!.]*.pth")]:
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch says of a file that is not whole
            return newest, f"{path.name} is not whole: {error}"
        if path.suffix == ".state":
            newest = max(newest, int(path.stem))
    for path in (folder / "models").glob("[!.]*.safetensors"):
        try:
            weight_files.load(path)
        except UserError as error:
            return newest, str(error)
    return newest, ""


# --- the end ----------------------------------------------------------------------------------------------------


def orphans(work: Path) -> list[str]:
    """Processes of this run that a kill left behind: data workers, which must notice that they are alone."""
    for _ in range(100):
        left = [p for p in Path("/proc").glob("[0-9]*") if str(work / "runs") in command_line(p)]
        if not left:
            return []
        time.sleep(0.2)
    return [f"process {p.name} is still there: {command_line(p)[:80]}" for p in left]


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def differences(args: argparse.Namespace, whole: Path, killed: Path) -> list[str]:
    """What of the killed run is not as in the one that was never killed."""
    names = (f"training_states/{args.iters}.state", "models/net_latest.pth", "models/net_best.pth")
    found = []
    for name in names:
        if not (killed / name).is_file():
            found.append(f"{name} is missing")
            continue
        a, b = (dict(weight_files.load(folder / name)) for folder in (whole, killed))
        for content in (a, b):
            content.pop("options")  # the runs' names differ
        found += [f"{name}: {path}" for path in unequal(a, b)]
    a, b = (records(folder / "log.jsonl") for folder in (whole, killed))
    if a != b:
        first = next((x["step"] for x, y in zip(a, b, strict=False) if x != y), min(len(a), len(b)))
        found.append(f"log.jsonl: {len(a)} and {len(b)} records, which differ from step {first} on")
    return found


def records(path: Path) -> list[dict[str, Any]]:
    """The records, one a step, but for the times. A validation that was made again may be there twice."""
    steps: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        steps.setdefault(record["step"], {}).update({k: v for k, v in record.items() if not k.startswith("time/")})
    return list(steps.values())


def unequal(a: Any, b: Any, path: str = "") -> list[str]:
    """Paths inside two nested contents at which they are not equal bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape
        return [] if same and a.numpy().tobytes() == b.numpy().tobytes() else [path]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return [f"{path}: other keys"]
        return [p for k in a for p in unequal(a[k], b[k], f"{path}.{k}" if path else str(k))]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [p for i, (x, y) in enumerate(zip(a, b, strict=True)) for p in unequal(x, y, f"{path}.{i}")]
    return [] if a == b else [path]


def report(args: argparse.Namespace, kills: list[Kill], mistakes: list[str], whole_seconds: float) -> None:
    rows = []
    for kind in (*KINDS, "all"):
        own = [k for k in kills if kind in (k.kind, "all")]
        rows.append(
            {
                "killed while": kind,
                "kills": len(own),
                "fell into a write": sum(k.in_write for k in own),
                "no checkpoint yet": sum(k.saved == 0 for k in own),
                "whole checkpoint found": sum(k.saved > 0 and not k.mistake for k in own),
                "mistakes": sum(bool(k.mistake) for k in own),
            }
        )
    print(console_table(rows, list(rows[0])))
    print(
        f"{len(kills)} kills, seed {args.seed}; {args.iters} steps, saved every {SAVE_EVERY}; resumed at "
        f"{len({k.resumed for k in kills} - {0, None})} different steps; {whole_seconds:.0f} s without kills, "
        f"{sum(k.seconds for k in kills):.0f} s of lives that were killed"
    )
    print("\n".join(mistakes[:20]) or "the killed run ended in the same bits as the run that was never killed")
    if args.out:
        result = {
            "passed": not mistakes, "mistakes": mistakes, "seed": args.seed, "iters": args.iters,
            "save_every": SAVE_EVERY, "table": rows, "kills": [asdict(k) for k in kills],
        }  # fmt: skip
        write_file(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run(soak))
