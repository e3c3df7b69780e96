"""Train one stage.

    python -m keep.train -opt options/train/stage1_vqgan.yml
    python -m keep.train -opt options/train/stage2_kalman.yml --set train.optim.lr=1e-4 --resume auto
    python -m keep.train -opt options/train/stage3_video.yml --dry-run
    torchrun --nproc-per-node 8 -m keep.train -opt options/train/stage3_video.yml --auto-resume

Exit status: 0 finished; 75 stopped by SIGTERM, SIGINT or SIGUSR1, after saving if it trained: start again with
``--auto-resume``; 2 bad input, a loss that is not finite, a GPU out of memory, or another process of the run lost,
reported in one line; 1 anything else.
"""  # fmt: skip

import sys
from collections.abc import Sequence

from keep.utils.signals import REQUEUE, SIGNALS, Stopped
from keep.utils.starting import starting

with starting(REQUEUE, SIGNALS):
    from keep.config import cli
    from keep.config.schema import TrainConfig
    from keep.utils.errors import UserError


def command(argv: Sequence[str] | None) -> int | None:
    parser = cli.parser("keep-train", "Train one stage of KEEP from an options file.")
    parser.add_argument(
        "--resume", nargs="?", const="auto", metavar="STATE",
        help="resume from the newest intact checkpoint of this run, or from the named .state file",
    )  # fmt: skip
    parser.add_argument(
        "--auto-resume", dest="resume", action="store_const", const="auto",
        help="the same as --resume alone, for job scripts: a run without a checkpoint starts from the beginning",
    )  # fmt: skip
    parser.add_argument(
        "--allow-changed", action="store_true", help="resume even when options that shape the result have changed"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="build everything, run one step of each phase, write nothing"
    )
    args = parser.parse_args(argv)
    config = cli.read_options(args, TrainConfig)
    if config is None:
        return None
    with starting(REQUEUE, SIGNALS):
        from keep.training import dry_run, trainer
        from keep.utils.logging import to_console

    to_console()
    if args.dry_run:
        if args.resume:
            raise UserError("--dry-run starts from `pretrained`: use it without --resume")
        dry_run.dry_run(config)
        return None
    try:
        folder = trainer.train(config, args.resume, args.allow_changed)
    except Stopped as stopped:
        print(f"stopped: {stopped}; continue with --auto-resume (exit status {REQUEUE})", file=sys.stderr)
        return REQUEUE
    print(f"done: {folder}")
    return None


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(command, argv, REQUEUE, SIGNALS)


if __name__ == "__main__":
    sys.exit(main())
