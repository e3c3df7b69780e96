"""Write a network as a graph with its state: one frame in, one frame out, for ONNX Runtime, OpenVINO and others.

    python -m keep.export -w lite -o lite.onnx
    python -m keep.export -w net_latest.pth -o half.onnx --dtype fp16
    python -m keep.export -w lite -o lite.pt2                 # machine code for this processor, by AOTInductor
"""  # fmt: skip

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from keep.utils.starting import starting

with starting():
    from keep.config import cli
    from keep.inference.exported.check import Difference, compare
    from keep.inference.exported.write import SUFFIXES, Flow, export
    from keep.inference.weights import DEFAULT, find, load_keep
    from keep.utils.errors import UserError
    from keep.utils.io import AtomicWrite
    from keep.utils.logging import log, to_console


def parser() -> cli.Parser:
    p = cli.Parser(prog="keep-export", description="Write a network as a graph with its state; see docs/export.md.")
    p.add_argument("-w", "--weights", metavar="FILE", default=DEFAULT, help=f"weights, as for restoring ({DEFAULT})")
    p.add_argument("-o", "--output", metavar="OUT", required=True, type=Path, help="the file: .onnx, or .pt2")
    p.add_argument("--dtype", default="float32", help="float32 or fp16: what most of the graph computes in (float32)")
    p.add_argument("--params", choices=("ema", "online"), default="ema", help="which weights, if the file has both")
    p.add_argument(
        "--flow", choices=get_args(Flow), default="auto",
        help="inside: estimated in the graph; input: given; auto: inside, unless the estimator is DIS (auto)",
    )  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return p


def run(argv: Sequence[str] | None) -> None:
    args = parser().parse_args(argv)
    to_console()
    if args.output.suffix not in SUFFIXES:
        raise UserError(f"{args.output}: the suffix must be one of {', '.join(SUFFIXES)}")
    cli.check_new([args.output], args.overwrite)
    cli.check_output(args.output.parent)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    net = load_keep(args.weights, args.params)
    with AtomicWrite(args.output) as complete:  # it gets its name when it is known to compute the same
        manifest = export(net, complete, args.dtype, args.flow, weights=find(args.weights).name)
        found = compare(net, complete)
        if isinstance(found, Difference) and not found.small(manifest.dtype):
            raise UserError(f"{args.output} is not written: it would not compute what the network does: {found}")
    side = manifest.image_size
    flow = "an input" if manifest.takes_flow else "estimated inside"
    log.info(f"wrote    {args.output}: {manifest.dtype}, frames {side}×{side}, flow {flow}")
    log.info(f"compared {found}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(run, argv)


if __name__ == "__main__":
    sys.exit(main())
