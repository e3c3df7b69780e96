"""Check that the memory of a loader's worker does not grow over many clips.

    python -m scripts.soak.data -opt options/train/stage2_kalman.yml
    python -m scripts.soak.data -opt options/tiny/stage2.yml --clips 500

Draws ``--clips`` clips of ``data.train`` with one worker and prints the worker's resident memory for each tenth of
them. The exit status is 1 if the peak of the last tenth is more than ``--limit`` percent above that of the second (the
first fills caches). Peaks are compared, not medians: the allocator returns a freed block at some times and keeps it at
others, which moves the median without any growth. Linux only: it reads /proc.
"""  # fmt: skip

import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from keep.config import arguments, cli
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.data.sampler import make_loader
from keep.utils.errors import UserError
from keep.utils.tables import console_table

TENTHS = 10


def soak(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser("scripts.soak.data", "Measure the memory of a loader's worker over many clips.")
    parser.add_argument(
        "--clips", type=arguments.whole(TENTHS, 10**9), default=2000, help="number of clips to draw (2000)"
    )
    parser.add_argument(
        "--limit", type=arguments.number(0, 1000), default=2.0, help="largest growth in percent that passes (2)"
    )
    args = parser.parse_args(argv)
    if not Path("/proc/self/status").is_file():
        raise UserError("scripts.soak.data reads the memory of processes from /proc, which this system does not have")
    config = cli.read_options(args, TrainConfig)
    if config is None:
        return 0
    start = time.perf_counter()
    memory = watch(build(config.data.train), config.seed, args.clips)
    print(f"{args.clips} clips in {time.perf_counter() - start:.0f} s, one worker; its resident memory in MiB:")
    tenths = [memory[i * args.clips // TENTHS : (i + 1) * args.clips // TENTHS] for i in range(TENTHS)]
    rows = [
        {
            "clips": f"– {(i + 1) * args.clips // TENTHS}",
            "median": statistics.median(t),
            "lowest": min(t),
            "highest": max(t),
        }
        for i, t in enumerate(tenths)
    ]
    print(console_table(rows, ["clips", "median", "lowest", "highest"], digits=1))
    early, late = max(tenths[1]), max(tenths[-1])
    growth = 100 * (late / early - 1)
    print(
        f"peak of the second tenth {early:.1f} MiB, of the last {late:.1f} MiB: {growth:+.1f} % (limit {args.limit:g})"
    )
    return int(growth > args.limit)


def watch(dataset: Any, seed: int, clips: int) -> list[float]:
    """The resident memory of a loader's single worker in MiB, after each of ``clips`` clips."""
    before = set(multiprocessing.active_children())
    memory, pid = [], 0
    loader = make_loader(dataset, seed, 1, stop=clips, workers=1)
    for _ in tqdm(loader, total=clips, desc="drawing", unit=" clips", delay=2, leave=False):
        pid = pid or next(p.pid or 0 for p in multiprocessing.active_children() if p not in before)
        memory.append(resident(pid))
    return memory


def resident(pid: int) -> float:
    """VmRSS of a process in MiB: private and shared pages."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    sys.exit(cli.run(soak))
