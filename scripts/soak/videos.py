"""Damage videos in many ways and restore them: no traceback, no hang, nothing left, the right exit status.

    python -m scripts.soak.videos                                10,000 files, some hours on one core
    python -m scripts.soak.videos --files 200 --out soak.json
    python -m scripts.soak.videos --results soak.jsonl           the same command again resumes where it stopped
    python -m scripts.soak.videos --suffix .webm                 only the files made from .webm
    python -m scripts.soak.videos --only 4711 --work folder      file 4711 again; it is kept in the folder

Small videos are made in six containers, with and without sound and B-frames. Each of the files is one of them, damaged
by one to three operations; which ones, and where, depends only on the seed and the file's number. It is restored with a
detector that finds one face in every frame and a network that changes nothing, so that a file takes some tenths of a
second. A plain PyAV loop counts the frames that can be decoded; it knows how many the intact file has. From that
follows the exit status: 2 for no frame, 3 where frames are missing, damaged or cannot be decoded, else 0.
"""  # fmt: skip

import argparse
import json
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from keep.config import arguments
from keep.config.cli import Parser, run
from keep.faces.detect import Face
from keep.inference.video import Settings, Tools, restore_video
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.tables import console_table
from scripts.soak.damage import damage
from scripts.soak.made_videos import KINDS, Made, make_videos

SETTINGS = Settings(preset="ultrafast", min_face=8, without_sound=True)
PATIENCE = 60.0  # seconds without a result after which a file counts as hung
STARTING = 600.0  # the same for the first result of a process, which has to import everything


@dataclass
class Result:
    """What happened to one file.

    Attributes:
        number: number of the file.
        seed: seed of the damage.
        source: the intact file.
        operations: how it was damaged.
        intact: frames of the intact file.
        decodable: frames that a plain loop decodes; 0 if the file cannot be opened.
        damaged: frames that the decoder marks as damaged, and packets that it cannot decode.
        status: exit status of the restoration.
        frames: frames in the output.
        lost: frames lost, according to the restoration.
        seconds: time of the restoration.
        mistake: traceback, hang or left files; empty if there was none.
    """

    number: int
    seed: int
    source: str
    operations: list[str]
    intact: int = 0
    decodable: int = 0
    damaged: int = 0
    status: int = -1
    frames: int = 0
    lost: int = 0
    seconds: float = 0.0
    mistake: str = ""

    @property
    def expected(self) -> int:
        """The exit status that follows from the count of decodable frames."""
        if not self.decodable:
            return 2
        return 3 if self.decodable < self.intact or self.damaged else 0


class Centre:
    """Finds one face in the middle of every frame."""

    name = "centre"

    def __call__(self, image: np.ndarray) -> list[Face]:
        centre = np.array(image.shape[1::-1], np.float32) / 2
        points = centre + 16 * np.array([(-0.4, -0.3), (0.4, -0.3), (0, 0.1), (-0.3, 0.5), (0.3, 0.5)], np.float32)
        return [Face(np.concatenate([centre - 16, centre + 16]), points, 0.9)]


class Unchanged:
    """A network that returns the crops as they are."""

    size, window = 16, 8

    def begin(self) -> Any:
        return lambda crops: crops


def soak(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    with tempfile.TemporaryDirectory(prefix="soak_") as temporary:
        work = args.work or Path(temporary)
        made = make_videos(work / "intact")
        if args.only is not None:
            print(json.dumps(asdict(restore_one(made, work, args.seed, args.only)), indent=1))
            return 0
        if args.worker is not None:
            for number in numbers(args, made):
                if number < args.worker:
                    continue
                result = restore_one(made, work, args.seed, number)
                (work / "damaged" / input_name(made, number)).unlink()
                print(json.dumps(asdict(result)), flush=True)
            return 0
        return report(args, watch(args, work, made))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.soak.videos", description="Damage videos and restore them.")
    p.add_argument("--files", type=arguments.count, default=10_000, help="number of damaged files (10,000)")
    p.add_argument("--seed", type=arguments.seed, default=0, help="seed of the damage (0)")
    p.add_argument("--seconds", type=arguments.number(0, 1e9), default=float("inf"), help="stop after this time")
    p.add_argument(
        "--only", type=arguments.count_or_none, metavar="N", help="restore file N alone, and print what happened"
    )
    p.add_argument("--work", type=Path, help="folder to work in, which is kept; default: a temporary folder")
    p.add_argument("--suffix", choices=tuple(KINDS), help="only files of this container; they keep their numbers")
    p.add_argument("--out", type=Path, help="write the result to this file as JSON")
    p.add_argument("--results", type=Path, help="add each file's result to this file, and skip those it has already")
    p.add_argument(
        "--worker", type=arguments.count_or_none, metavar="N", help=argparse.SUPPRESS
    )  # restores from file N on
    args = p.parse_args(argv)
    if args.files < 1:
        raise UserError("--files must be at least 1")
    return args


def numbers(args: argparse.Namespace, made: list[Made]) -> list[int]:
    """Numbers of the files to restore."""
    wanted = [args.suffix in (None, one.path.suffix) for one in made]
    return [number for number in range(args.files) if wanted[number % len(made)]]


def watch(args: argparse.Namespace, work: Path, made: list[Made]) -> list[Result]:
    """Restore the files in another process. Where it ends or hangs, another one goes on behind that file."""
    results = [result for result in read_results(args.results) if result.seed == args.seed]
    done = {result.number for result in results}
    pending = deque(number for number in numbers(args, made) if number not in done)
    end = time.perf_counter() + args.seconds
    while pending and time.perf_counter() < end:
        for result in worker_results(args, work, pending[0], end):
            if result.number == pending[0]:  # else an earlier run has it
                keep(result, results, pending, args.results)
        if pending and time.perf_counter() < end:
            number = pending[0]
            mistake = f"the process ended, or gave no result in time; see {work / 'log.txt'}"
            keep(
                Result(number, args.seed, input_name(made, number), [], mistake=mistake), results, pending, args.results
            )
    return results


def keep(result: Result, results: list[Result], pending: deque[int], path: Path | None) -> None:
    """Take the result of the next pending file."""
    pending.popleft()
    results.append(result)
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")


def read_results(path: Path | None) -> list[Result]:
    """The results of earlier runs, written by :func:`keep`."""
    if path is None or not path.exists():
        return []
    return [Result(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def worker_results(args: argparse.Namespace, work: Path, number: int, end: float) -> Iterator[Result]:
    """Results of a process that restores the files from ``number`` on, until it ends or hangs, or time is over."""
    command = [sys.executable, "-m", "scripts.soak.videos", "--worker", str(number), "--work", str(work)]
    command += ["--files", str(args.files), "--seed", str(args.seed)]
    command += ["--suffix", args.suffix] if args.suffix else []
    with (
        (work / "log.txt").open("ab") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as worker,
    ):
        assert worker.stdout is not None
        patience = STARTING
        while time.perf_counter() < end and select.select([worker.stdout], [], [], patience)[0]:
            if not (line := worker.stdout.readline()):
                break
            patience = PATIENCE
            yield Result(**json.loads(line))
        worker.kill()


def input_name(made: list[Made], number: int) -> str:
    """Name of damaged file ``number``."""
    path = made[number % len(made)].path
    return f"{number:05d}.{path.stem}{path.suffix}"


def restore_one(made: list[Made], work: Path, seed: int, number: int) -> Result:
    """Damage a file, restore it, and compare with what a plain loop decodes."""
    intact = made[number % len(made)]
    data, operations = damage(intact.path.read_bytes(), seed, number)
    path, out = work / "damaged" / input_name(made, number), work / "restored"
    for folder in (path.parent, out):
        folder.mkdir(exist_ok=True)
    path.write_bytes(data)
    result = Result(number, seed, intact.path.name, operations, intact.frames)
    result.decodable, result.damaged = count_frames(path)
    begun = time.perf_counter()
    output = out / ("out.mp4" if number % 2 else "out.mkv")
    try:
        summary = restore_video(path, output, Tools(Unchanged(), Centre()), SETTINGS, announce=lambda _: None)
        result.status, result.lost = 3 if summary.broken else 0, summary.lost
        result.frames = count_packets(output)
    except UserError:
        result.status = 2
    except Exception:  # what the soak looks for
        result.mistake = traceback.format_exc()
    result.seconds = time.perf_counter() - begun
    output.unlink(missing_ok=True)
    if left := [file.name for file in out.iterdir()]:
        result.mistake = result.mistake or f"left: {', '.join(left)}"
        for name in left:
            (out / name).unlink()
    return result


def count_frames(path: Path) -> tuple[int, int]:
    """(frames that PyAV decodes, frames that it marks as damaged or cannot decode). Nothing of the code under test."""
    frames = damaged = errors = 0
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            video: Any = next(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
            while errors < 50:
                try:
                    for packet in container.demux(video):
                        try:
                            decoded = packet.decode()
                        except av.error.FFmpegError:
                            damaged += 1  # repeated pictures may make up the number, but not for this one
                            continue
                        frames += len(decoded)
                        damaged += sum(frame.is_corrupt for frame in decoded)
                    break
                except IndexError:  # PyAV fails at the end of a file in which further streams appeared
                    break
                except av.error.FFmpegError:
                    errors += 1
    except (av.error.FFmpegError, OSError, StopIteration, AttributeError):
        pass
    return frames, damaged


def count_packets(path: Path) -> int:
    """Frames of an output."""
    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def report(args: argparse.Namespace, results: list[Result]) -> int:
    """Print the result, and write it to ``--out``; the exit status."""
    rows = []
    for suffix in (*KINDS, ""):
        group = [r for r in results if r.source.endswith(suffix)]
        rows.append(
            {
                "container": suffix or "all",
                "files": len(group),
                "status 0 / 2 / 3": " / ".join(str(Counter(r.status for r in group)[s]) for s in (0, 2, 3)),
                "same status": f"{100 * sum(r.status == r.expected for r in group) / max(1, len(group)):.2f} %",
                "same frames": f"{100 * sum(r.frames == r.decodable for r in group) / max(1, len(group)):.2f} %",
                "mistakes": sum(bool(r.mistake) for r in group),
            }
        )
    print(console_table(rows, list(rows[0])))
    mistakes = [r for r in results if r.mistake]
    for r in mistakes[:20]:
        print(f"file {r.number} ({r.source}, {', '.join(r.operations)}): {r.mistake}")
    print(f"{len(results)} files, seed {args.seed}, {sum(r.seconds for r in results):.0f} s of restoring")
    if args.out:
        different = [asdict(r) for r in results if r.status != r.expected or r.frames != r.decodable]
        content = {"seed": args.seed, "table": rows, "mistakes": [asdict(r) for r in mistakes], "different": different}
        write_file(args.out, json.dumps(content, indent=1) + "\n")
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(run(soak))
