"""Write a network as the Hugging Face hub expects it, or upload it.

    keep-weights publish experiments/stage3/models/net_latest.pth my_model --results results/test
    keep-weights publish experiments/stage3/models/net_latest.pth hf://org/name --licence cc-by-nc-4.0

A folder gets config.json, model.safetensors and README.md, the model card: data, options, versions, scores with
intervals, licence. Files that it has already are replaced with --overwrite only. An upload needs the extra `hub` and
`hf auth login`.
"""  # fmt: skip

import argparse
from collections.abc import Sequence
from pathlib import Path

from keep.config import cli
from keep.config.plugins import import_registered
from keep.inference.hub import KEEP
from keep.utils import hub
from keep.utils.errors import UserError
from keep.utils.paths import expand


def publish(argv: Sequence[str] | None) -> None:
    args = parser().parse_args(argv)
    address = hub.parse(args.out)
    if address is not None:
        hub.import_library(args.out)
        if address.file != hub.WEIGHTS:
            raise UserError(f"{args.out}: expected hf://ORG/NAME or hf://ORG/NAME@BRANCH")
    else:
        folder = expand(args.out)
        cli.check_output(folder)
        cli.check_new([folder / name for name in (hub.WEIGHTS, hub.CONFIG, hub.CARD)], args.overwrite)
    import_registered()
    net = KEEP.from_pretrained(args.input, params=args.params)
    if address is None:
        net.save_pretrained(args.out, results=args.results, licence=args.licence, half=args.half)
        print(f"wrote    {args.out}: {hub.WEIGHTS}, {hub.CONFIG}, {hub.CARD}")
        return
    link = net.push_to_hub(
        address.repo, revision=address.revision, private=args.private or None, results=args.results,
        licence=args.licence, half=args.half,
    )  # fmt: skip
    print(f"uploaded {link}")


def parser() -> argparse.ArgumentParser:
    assert __doc__
    form = argparse.RawDescriptionHelpFormatter
    p = cli.Parser(prog="keep-weights publish", description=__doc__, formatter_class=form)
    p.add_argument("input", metavar="IN", help="weights file, or a name as for keep-restore -w")
    p.add_argument("out", metavar="OUT", help="folder to write, or hf://ORG/NAME[@BRANCH] to upload")
    p.add_argument("--params", choices=("ema", "online"), default="ema", help="which weights, if IN has both (ema)")
    p.add_argument("--results", type=Path, metavar="FOLDER", help="results of keep-test on IN, for the model card")
    p.add_argument("--licence", metavar="ID", help="for the model card: cc-by-nc-4.0, … or words (not stated)")
    p.add_argument("--half", action="store_true", help="write float16; networks that load it compute in float32")
    p.add_argument("--overwrite", action="store_true", help="replace these files in a folder that has them")
    p.add_argument("--private", action="store_true", help="a new repository on the hub is private")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(publish, argv)
