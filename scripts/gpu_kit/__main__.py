"""Ten minutes on a GPU: measure everything, test everything, then train with the time that is left.

    python -m scripts.gpu_kit --budget 480 --out results
    python -m scripts.gpu_kit --budget 580 --out results --jobs versions --set data.train.root=faces.zip \\
        --train options/small/stage{1,2_start,2,3}.yml --shares 4 3 2 1

It runs, in order of value and each within a time limit: versions, the tests of tests/gpu, parity of CPU and GPU,
benchmarks of inference, GroupNorm and training, then the options files of ``--train``, whose schedules it fits to their
share of the time. A job that fails or hangs does not stop the others. All results are in ``--out`` the moment they
exist; the kit ends 15 s before the budget. docs/gpu.md explains the results.
"""  # fmt: skip

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

START = time.monotonic()

from keep.config import arguments  # noqa: E402, the clock starts before torch is imported
from keep.config.cli import Parser, check_output, run  # noqa: E402, the clock starts before torch is imported
from keep.utils.credentials import without_credentials  # noqa: E402
from keep.utils.devices import pick_device  # noqa: E402
from keep.utils.errors import UserError  # noqa: E402
from scripts.gpu_kit.jobs import GRACE  # noqa: E402
from scripts.gpu_kit.kit import MARGIN, Kit  # noqa: E402
from scripts.gpu_kit.plan import choose, measurements, trainings  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    check_output(args.out)
    if (args.out / "summary.json").exists():
        raise UserError(f"--out: {args.out} holds the results of another run; name another folder")
    jobs = [*choose(measurements(args.device, args.size), args.jobs, args.budget), *trainings(args)]
    if not jobs:
        raise UserError("there is nothing to do: name jobs (--jobs) or options files (--train)")
    words = sys.argv[1:] if argv is None else argv
    head = {
        "command": without_credentials(" ".join(["python -m scripts.gpu_kit", *words])),
        "device": args.device,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with tempfile.TemporaryDirectory(prefix="gpu_kit_") as work:
        kit = Kit(
            jobs, args.out, Path(work), args.budget, margin=args.margin, grace=min(GRACE, args.budget / 10),
            every=args.every, most=int(args.weights_mb * 1e6), start=START if argv is None else None, head=head,
        )  # fmt: skip
        passed = kit.run()
    print(f"done: {args.out / 'summary.md'}")
    return 0 if passed else 1


SECONDS = arguments.number(0, 1e9, above=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__
    p = Parser(prog="scripts.gpu_kit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--budget", type=SECONDS, required=True, help="seconds that all of it may take")
    p.add_argument("--out", type=Path, required=True, help="folder of the results")
    p.add_argument("--jobs", nargs="*", metavar="NAME", help="measure only these; none: only train (default: all)")
    p.add_argument("--train", type=Path, nargs="+", default=[], metavar="YML", help="options files to train, in order")
    p.add_argument(
        "--shares",
        type=arguments.number(0, 1e6, above=True),
        nargs="+",
        metavar="N",
        help="shares of the time of these files (equal)",
    )
    p.add_argument("--set", action="append", default=[], metavar="[NAME:]KEY=VALUE", help="override an option of all "
                   "options files, or of NAME.yml")  # fmt: skip
    p.add_argument("--device", default="auto", help="cpu, cuda or auto")
    p.add_argument("--size", choices=("released", "small"), default="released", help="networks of the benchmarks")
    p.add_argument("--every", type=SECONDS, default=60.0, help="seconds between two copies of the weights (60)")
    p.add_argument(
        "--weights-mb",
        type=arguments.number(0, 1e9),
        default=60.0,
        help="most weights to copy, in MB; old runs go first (60)",
    )
    p.add_argument(
        "--margin", type=arguments.number(0, 1e9), default=MARGIN, help="seconds before the budget to end (15)"
    )
    args = p.parse_args(argv)
    args.device = pick_device(args.device).type
    if args.budget <= args.margin or args.every <= 0 or args.margin < 0:
        raise UserError(f"--budget must be more than the margin of {args.margin:g} s, and --every more than 0")
    for path in args.train:
        if not path.is_file():
            raise UserError(f"{path}: no such options file")
    return args


if __name__ == "__main__":
    sys.exit(run(main))
