"""Options of the command line that restores videos, and the networks and settings made from them."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import torch

from keep.config import arguments, cli
from keep.config.plugins import import_registered
from keep.config.registry import DETECTORS, IDENTITIES
from keep.data.mux import RATES, WRITTEN, Codec
from keep.data.mux.fields import Deinterlace
from keep.degradation.codec import Preset
from keep.faces.detect import default_detector
from keep.faces.parse import find_parser
from keep.inference.api import load_restorer
from keep.inference.exported.choose import BackendName, exported_network
from keep.inference.video.enhance import Enhancer
from keep.inference.video.network import KeepNetwork, Network
from keep.inference.video.settings import Settings, Tools
from keep.inference.weights import DEFAULT, find
from keep.utils.devices import prepare
from keep.utils.downloads import sha256
from keep.utils.errors import UserError
from keep.utils.launch import launched_ranks
from keep.utils.logging import log
from keep.utils.paths import expand


def parser(program: str = "keep-restore") -> argparse.ArgumentParser:
    """The command line of ``keep-restore``."""
    p = cli.Parser(
        prog=program,
        description="Restore the faces of a video, a folder of frames, or a folder of videos.",
        epilog="Exit status: 0: restored, or no face was found; 2: bad input; 3: restored, but frames of the input "
        "could not be decoded; 130: stopped.",
    )
    p.add_argument("input", metavar="IN", help="a video, a folder of frames, or a folder of videos")
    p.add_argument(
        "-o", "--output", metavar="OUT", required=True,
        help=f"the video to write ({', '.join(sorted(WRITTEN))}), or a folder",
    )  # fmt: skip
    p.add_argument("--aligned", action="store_true", help="the frames are aligned faces (FFHQ): only restore them")
    _add_network_options(p.add_argument_group("network"))
    _add_face_options(p.add_argument_group("faces"))
    _add_pasting_options(p.add_argument_group("pasting"))
    _add_output_options(p.add_argument_group("output"))
    cli.add_engine(p, "restore the videos of a folder")
    return p


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The checked options.

    Raises:
        UserError: a wrong command line.
    """
    args = parser().parse_args(argv)
    check(args)
    return args


def _add_network_options(g: argparse._ArgumentGroup) -> None:
    g.add_argument(
        "-w", "--weights", metavar="FILE",
        help="weights file; lite: shipped, 256×256 faces (default); nano: shipped, 128×128; KEEP, KEEP_Asian: by the "
        "authors, downloaded; hf://ORG/NAME[@REVISION]: on the Hugging Face hub",
    )  # fmt: skip
    g.add_argument(
        "--backend", choices=get_args(BackendName), default="pytorch",
        help="what runs the network: pytorch; onnx (ONNX Runtime) or openvino, which take .onnx files of keep-export, "
        "and export other weights once (pytorch)",
    )  # fmt: skip
    g.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N (default auto)")
    g.add_argument(
        "--dtype", default="auto", help="auto: bf16 where the hardware has it; float32, bf16 or fp16 (default auto)"
    )
    g.add_argument(
        "--fidelity", type=arguments.share, default=1.0, metavar="W",
        help="0: most detail, from the codebook alone; 1: closest to the input (default 1)",
    )  # fmt: skip
    g.add_argument("--window", type=arguments.whole(1, 1024), default=8, help="frames encoded at once (default 8)")
    g.add_argument(
        "--batch",
        type=arguments.whole(1, 1024),
        default=4,
        help="faces of the same frames computed together (default 4)",
    )
    g.add_argument("--compile", action="store_true", help="torch.compile the network: slow to start, then faster")
    g.add_argument(
        "--threads", type=arguments.count_or_none, default=0, help="CPU threads of the network; 0: chosen by torch (0)"
    )


def _add_face_options(g: argparse._ArgumentGroup) -> None:
    g.add_argument("--detector", metavar="NAME[=FILE]", help="RetinaFace, YuNet or CenterFace (default: any available)")
    g.add_argument("--identity", metavar="NAME[=FILE]", help="distinguish people: ArcFace, ONNXIdentity=FILE or Dlib")
    g.add_argument(
        "--detect-every", type=arguments.count, default=8, metavar="N",
        help="search the whole frame every N frames, and follow known faces in between; 1: search every frame (8)",
    )  # fmt: skip
    g.add_argument("--any-angle", action="store_true", help="also find faces on their side or upside down")
    g.add_argument(
        "--max-gap",
        type=arguments.count_or_none,
        default=10,
        metavar="N",
        help="bridge N frames without a detection (10)",
    )
    g.add_argument(
        "--sigma", type=arguments.sigma, default=5, help="smoothing of landmarks, eq. (10), in frames; 0: none (5)"
    )
    g.add_argument(
        "--radius", type=arguments.whole(0, 10_000), default=20, help="radius of the smoothing window, in frames (20)"
    )
    g.add_argument(
        "--min-face", type=arguments.pixels, default=24, metavar="PX", help="do not restore smaller faces (24)"
    )
    g.add_argument(
        "--min-frames", type=arguments.count_or_none, default=5, metavar="N", help="do not restore shorter tracks (5)"
    )


def _add_pasting_options(g: argparse._ArgumentGroup) -> None:
    g.add_argument(
        "--parser", default="auto", metavar="WHICH",
        help="face parsing for the mask: none, parsenet (downloaded), its file, or auto: if its network is available",
    )  # fmt: skip
    g.add_argument(
        "--min-confidence", type=arguments.share, default=0.0, metavar="C",
        help="go back to the input where a block is less likely than this to show what was there; 0: nowhere (0)",
    )  # fmt: skip
    g.add_argument("--match-color", action="store_true", help="give restored faces the coarse colours of the input")
    g.add_argument("--auto", action="store_true", help="leave faces that are sharp already, blend those in between")
    g.add_argument("--background", metavar="MODEL", help="super-resolution model (spandrel) that enlarges full frames")
    g.add_argument(
        "--scale",
        type=arguments.number(0, 8, above=True),
        metavar="S",
        help="output size over input size (default: MODEL's, else 1)",
    )


def _add_output_options(g: argparse._ArgumentGroup) -> None:
    g.add_argument(
        "--codec", choices=get_args(Codec), default="auto",
        help="auto: h265 for HDR and more than 8 bits, else h264; ffv1: lossless, in .mkv (auto)",
    )  # fmt: skip
    g.add_argument("--crf", type=arguments.crf, default=18, help="quality of h264 and h265, lower is better (18)")
    g.add_argument("--preset", default="medium", help="encoder speed, ultrafast to veryslow (medium)")
    g.add_argument(
        "--deinterlace", choices=get_args(Deinterlace), default="auto",
        help="auto: interlaced video becomes progressive; off: it is taken as progressive; keep: it stays (auto)",
    )  # fmt: skip
    g.add_argument("--double-rate", action="store_true", help="deinterlace to a frame for each field")
    g.add_argument("--frames", action="store_true", help="write a folder of PNG files instead of a video")
    g.add_argument("--fps", type=arguments.number(*RATES), default=25, help="frame rate of a folder of frames (25)")
    g.add_argument("--without-sound", action="store_true", help="go on without sound that OUT cannot store")
    g.add_argument("--compare", action="store_true", help="also write NAME.compare: input and output side by side")
    g.add_argument("--plots", action="store_true", help="also write NAME.plots: landmarks before and after smoothing")
    g.add_argument(
        "--confidence", metavar="FILE|map|overlay",
        help="also write a video of the error to expect, as colours (FILE; map: NAME.confidence) or hatched over the "
        "output where a face is mostly invented (overlay), and NAME.confidence.json",
    )  # fmt: skip
    g.add_argument(
        "--sign", metavar="CERT",
        help="sign the record of the restoration into the output (C2PA): PEM file of certificate, chain and key",
    )  # fmt: skip
    g.add_argument("--overwrite", action="store_true", help="replace an existing output; of a folder: all")


def check(args: argparse.Namespace) -> None:
    """Raise UserError for values out of range."""
    cores = os.cpu_count() or 1
    checks = [
        ("IN", args.input, "a name, not empty"),
        ("--output", args.output, "a name, not empty"),
        ("--threads", args.threads <= cores, f"from 0 to {cores}, the cores of this machine"),
        ("--preset", args.preset in get_args(Preset), "one of " + ", ".join(get_args(Preset))),
    ]
    for name, valid, expected in checks:
        if not valid:
            raise UserError(f"{name}: must be {expected}")
    cli.check_engine(args, args.device)
    if args.confidence not in (None, "map", "overlay") and Path(args.confidence).suffix.lower() not in WRITTEN:
        known = ", ".join(sorted(WRITTEN))
        raise UserError(f"--confidence: {args.confidence} is not map, overlay or a video to write ({known})")
    if args.aligned and (args.background or args.scale):
        raise UserError("--aligned restores the crops themselves: --background and --scale do not apply")


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings of the command line; the options have the same names."""
    return Settings(**{f.name: getattr(args, f.name) for f in fields(Settings)})


def build_tools(args: argparse.Namespace) -> Tools:
    """The networks that the command line names, on its device."""
    import_registered()
    device = prepare(_device(args.device), args.threads, 0)
    network = _network(args, device)
    if not args.weights:
        log.info(
            f"weights: {DEFAULT}, shipped with this package: a small network ({network.size}×{network.size} pixels a "
            "face, for research), for small and badly degraded faces; -w KEEP uses the authors' (512×512)"
        )
    tools = Tools(network, about=_about(args))
    if not args.aligned:
        tools.detector = (cli.network(DETECTORS, args.detector) if args.detector else default_detector()).to(device)
        tools.identity = cli.network(IDENTITIES, args.identity).to(device) if args.identity else None
        tools.parser = find_parser(args.parser, device)
        tools.enhancer = Enhancer(args.background, device) if args.background else None
    return tools


def _about(args: argparse.Namespace) -> dict[str, Any]:
    """What a record of the restoration says of the network."""
    name = args.weights or DEFAULT
    return {
        "weights": Path(name).name if expand(name).exists() else str(name),
        "sha256": sha256(find(name)),
        "backend": args.backend,
        "dtype": args.dtype,
        "fidelity": args.fidelity,
        "min_confidence": args.min_confidence,
    }


def _network(args: argparse.Namespace, device: torch.device) -> Network:
    weights = args.weights or DEFAULT
    if args.backend == "pytorch":
        if str(weights).endswith(".onnx"):
            raise UserError(f"{weights} is an exported network: add --backend onnx or --backend openvino")
        return KeepNetwork(load_restorer(
            weights, device, args.dtype, window=args.window, fidelity=args.fidelity, compile=args.compile,
            confidence=args.confidence is not None, min_confidence=args.min_confidence,
        ))  # fmt: skip
    for option in ("compile", "confidence", "min_confidence"):
        if getattr(args, option):
            raise UserError(f"--{option.replace('_', '-')} needs --backend pytorch")
    options = {"threads": args.threads, "fidelity": args.fidelity, "window": args.window}
    return exported_network(args.backend, weights, device=str(device), dtype=args.dtype, **options)


def _device(name: str) -> str:
    """Under a launcher, ``auto`` gives each rank its own GPU."""
    if name == "auto" and torch.cuda.is_available():
        _, _, local = launched_ranks()
        return f"cuda:{local % torch.cuda.device_count()}"
    return name
