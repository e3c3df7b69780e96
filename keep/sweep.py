"""Search options of a training: many short trainings, each with the same seeds, through Optuna (extra ``sweep``).

    python -m keep.sweep -opt options/tiny/stage1.yml --param train.optim.lr=log:1e-4..1e-2 --trials 8 \\
        --metric loss/pixel -o sweeps/lr
    python -m keep.sweep -opt my.yml --param "model.gan.weight=[0.01, 0.1]" --param train.warmup=0..50 --trials 20 \\
        --seeds 0 1 2 -o sweeps/gan

The same command continues a stopped sweep. Exit status as for keep.train.
"""  # fmt: skip

import sys
from collections.abc import Sequence
from pathlib import Path

from keep.utils.starting import starting

with starting():
    from keep.config import arguments, cli
    from keep.config.schema import TrainConfig
    from keep.utils.logging import to_console


def command(argv: Sequence[str] | None) -> int | None:
    parser = cli.parser("keep-sweep", "Search options of a training; each trial trains with the same seeds.")
    parser.add_argument("--param", action="append", default=[], metavar="KEY=VALUES", help="an option to vary: "
                        "log:1e-5..1e-3, 0.1..0.9, 1..8 (whole numbers) or [a, b, c]; can be repeated")  # fmt: skip
    parser.add_argument("--trials", type=arguments.whole(1, 100_000), default=10, help="trials in all (10)")
    parser.add_argument("--seeds", type=arguments.seed, nargs="+", default=[0], help="seeds of every trial (0)")
    parser.add_argument("--metric", metavar="NAME", help="a metric of val.metrics, or a loss of log.jsonl such as "
                        "loss/pixel, lower is better (default: the first of val.metrics)")  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="folder of the sweep (sweeps/NAME)")
    args = parser.parse_args(argv)
    config = cli.read_options(args, TrainConfig)
    if config is None:
        return None
    with starting():
        from keep.training import sweep

    to_console()
    return sweep.run(config, args)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
