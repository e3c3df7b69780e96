"""Train one stage.

    python -m keep.train -opt options/train/stage1_vqgan.yml
    python -m keep.train -opt options/train/stage2_kalman.yml --set train.optim.lr=1e-4 --resume auto
    python -m keep.train -opt options/train/stage3_video.yml --dry-run
"""  # fmt: skip

import sys
from collections.abc import Sequence

from keep import cli
from keep.config import TrainConfig
from keep.errors import UserError


def command(argv: Sequence[str] | None) -> None:
    parser = cli.parser("keep-train", "Train one stage of KEEP from an options file.")
    parser.add_argument(
        "--resume", nargs="?", const="auto", metavar="STATE",
        help="go on from the newest checkpoint of this run, or from the named .state file",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="build everything, run one step of every phase, write nothing"
    )
    args = parser.parse_args(argv)
    config = cli.read_options(args, TrainConfig)
    if config is None:
        return
    from keep import trainer
    from keep.logger import to_console

    to_console()
    if args.dry_run:
        if args.resume:
            raise UserError("--dry-run starts from `pretrained`; leave out --resume")
        trainer.dry_run(config)
    else:
        folder = trainer.train(config, args.resume)
        print(f"done: {folder}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
