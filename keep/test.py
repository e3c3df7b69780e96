"""Restore and score clips with any registered restorers, and write a report.

    python -m keep.test -opt options/test/vfhq_heavy.yml
    python -m keep.test -opt options/test/vfhq_heavy.yml --quick               # five clips of 24 frames each
    torchrun --nproc-per-node 4 -m keep.test -opt options/test/vfhq.yml        # the ranks share the clips
    python -m keep.test -opt options/test/vfhq.yml --engine ray                # workers of Ray do

The same command resumes a stopped run. Exit status: 0, everything has a score; 1, the run is complete but something
failed (each failure is logged in one line and listed in the report), or another rank was killed before it was done; 2,
bad input, nothing was run; 130, stopped by Ctrl-C or SIGTERM. With several ranks, only the last one to finish returns
the status of the run; the others return 0, as torchrun would otherwise stop the rest.
"""  # fmt: skip

import logging
import sys
from collections.abc import Sequence

from keep.utils.starting import starting

with starting():
    from keep.config import arguments, cli
    from keep.config.schema import TestConfig
    from keep.evaluation.benchmark import run_benchmark
    from keep.evaluation.on_ray import Workers
    from keep.inference.fast import keep_freed_memory
    from keep.utils.logging import to_console

QUICK = (5, 24)
"""Clips of each split, and frames of each, that --quick scores."""


def command(argv: Sequence[str] | None) -> int:
    parser = cli.parser("keep-test", "Restore and score clips from an options file.")
    parser.add_argument(
        "--num", type=arguments.count, metavar="N", help="score only the first N clips of each split: a quick look"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"score {QUICK[1]} frames of the first {QUICK[0]} clips of each split"
    )
    cli.add_engine(parser, "score the clips")
    args = parser.parse_args(argv)
    if args.quick and args.num:
        parser.error("--quick has its own number of clips: give --quick or --num")
    config = cli.read_options(args, TestConfig)
    if config is None:
        return 0
    cli.check_engine(args, config.device)
    workers = Workers(args.opt, args.set, args.ray_cpus, args.ray_gpus) if args.engine == "ray" else None
    to_console(logging.INFO)
    keep_freed_memory()
    return run_benchmark(config, *(QUICK if args.quick else (args.num, None)), workers)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
