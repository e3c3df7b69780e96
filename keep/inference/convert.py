"""Convert KEEP's weights between this project's layout and the two public ones.

    keep-weights convert KEEP-b76feb75.pth keep.safetensors
    keep-weights convert net_latest.pth keep_public.pth --layout public-v1.0.0 --params ema
    keep-weights convert net_latest.pth half.safetensors --half    # float16: half the size

The layout of IN is detected. The suffix of OUT selects its format: .pth or .safetensors.
"""  # fmt: skip

import argparse
from collections.abc import Sequence
from pathlib import Path

from keep.config import cli
from keep.config.reading import read_yaml
from keep.inference.weights import PUBLISHED, SHIPPED, build_arch, read, stored_arch, write
from keep.utils.errors import UserError
from keep.utils.weight_files import fill


def convert(argv: Sequence[str] | None) -> None:
    args = parser().parse_args(argv)
    out = Path(args.out)
    if out.suffix not in (".pth", ".safetensors"):
        raise UserError(f"{out}: the suffix must be .pth or .safetensors")
    cli.check_new([out], args.overwrite)
    weights = read(args.input, args.params, args.cache)
    print(f"found    {weights.describe()}")
    if args.params == "online" and weights.params == "params_ema":
        raise UserError(f"{weights.path} has averaged weights only: use --params ema")
    arch = stored_arch(weights) if args.net is None else read_yaml(args.net).data
    fill(build_arch(arch, weights.path, weights.state), weights.state, weights.path)  # raises if they do not fit
    state = {k: v.half() if args.half and v.is_floating_point() else v for k, v in weights.state.items()}
    write(out, state, arch, args.layout)
    span = "the clip" if arch.get("temporal", "clip") == "clip" else "the past"
    print(f"wrote    {out}: layout {args.layout}, gains over {span}")
    if args.layout != "ours" and not any(k.startswith("flownet.") for k in weights.state):
        print("note     it has no flow estimator; the public code needs GMFlow's weights under flownet.model.")


def parser() -> argparse.ArgumentParser:
    assert __doc__
    form = argparse.RawDescriptionHelpFormatter
    p = cli.Parser(prog="keep-weights convert", description=__doc__, formatter_class=form)
    p.add_argument("input", metavar="IN", help=f"weights file, or a name: {', '.join([*SHIPPED, *PUBLISHED])}")
    p.add_argument("out", metavar="OUT", help="file to write")
    p.add_argument("--layout", choices=("ours", "public-v1.0.0", "public-v0.1.0"), default="ours", help="layout of OUT")
    p.add_argument("--params", choices=("ema", "online"), default="ema", help="which weights to convert if IN has both")
    p.add_argument("--half", action="store_true", help="write float16; networks that load it compute in float32")
    p.add_argument(
        "--net", metavar="FILE", type=Path, help="YAML with 'type: KEEP' and options, for an IN that lacks them"
    )
    p.add_argument("--overwrite", action="store_true", help="replace an existing file")
    p.add_argument("--cache", metavar="FOLDER", type=Path, help="folder of downloads (default: $KEEP_HOME)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(convert, argv)
