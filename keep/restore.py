"""Restore the faces of videos.

    python -m keep.restore old.mp4 -o new.mp4                                     # with the shipped weights
    python -m keep.restore videos/ -o restored/ -w KEEP --compare
    torchrun --nproc-per-node 4 -m keep.restore videos/ -o restored/ -w KEEP      # one share of the videos a GPU
"""  # fmt: skip

import argparse
import math
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from keep.config import cli
from keep.data.mux import RATES, WRITTEN, Codec, list_images
from keep.data.video_io import VIDEO_SUFFIXES
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.logging import log, to_console

BROKEN = 3  # exit status: restored, but frames of the input were lost


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(
        prog="keep-restore",
        description="Restore the faces of a video, a folder of frames, or a folder of videos.",
        epilog="Exit status: 0 restored, also where no face was found; 2 refused; 3 restored, but frames of the input "
        "could not be decoded; 130 stopped.",
    )
    p.add_argument("input", metavar="IN", help="a video, a folder of frames, or a folder of videos")
    p.add_argument(
        "-o", "--output", metavar="OUT", required=True,
        help=f"the video to write ({', '.join(sorted(WRITTEN))}), or a folder",
    )  # fmt: skip
    p.add_argument(
        "--aligned", action="store_true", help="the frames are aligned faces (FFHQ): restore them as they are"
    )

    g = p.add_argument_group("network")
    g.add_argument(
        "-w", "--weights", metavar="FILE",
        help="weights file; nano: shipped, for small faces (default); KEEP, KEEP_Asian: the authors', downloaded",
    )  # fmt: skip
    g.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N (default auto)")
    g.add_argument("--dtype", default="float32", help="float32, bf16 or fp16 (default float32)")
    g.add_argument(
        "--fidelity", type=float, default=1.0, metavar="W", help="0: the codebook's quality, 1: faithful (1)"
    )
    g.add_argument("--window", type=_positive, default=8, help="frames that are encoded at once (default 8)")
    g.add_argument(
        "--batch", type=_positive, default=4, help="faces of the same frames computed side by side (default 4)"
    )
    g.add_argument("--compile", action="store_true", help="torch.compile the network: slow to start, then faster")
    g.add_argument("--threads", type=_natural, default=0, help="CPU threads of the network; 0: torch's choice (0)")

    g = p.add_argument_group("faces")
    g.add_argument(
        "--detector", metavar="NAME[=FILE]", help="RetinaFace, YuNet or CenterFace; default: what is at hand"
    )
    g.add_argument("--identity", metavar="NAME[=FILE]", help="tell people apart: ArcFace, ONNXIdentity=FILE or Dlib")
    g.add_argument("--max-gap", type=_natural, default=10, metavar="N", help="frames without a detection bridged (10)")
    g.add_argument(
        "--sigma", type=float, default=5, help="smoothing of the landmarks, eq. (10), in frames; 0: none (5)"
    )
    g.add_argument("--radius", type=_natural, default=20, help="its window's radius, in frames (20)")
    g.add_argument("--min-face", type=float, default=24, metavar="PX", help="smaller faces stay as they are (24)")
    g.add_argument("--min-frames", type=_natural, default=5, metavar="N", help="shorter tracks stay as they are (5)")

    g = p.add_argument_group("pasting")
    g.add_argument(
        "--parser", default="auto", metavar="WHICH",
        help="face parsing for the mask: none, parsenet (downloaded), its file, or auto: where its network is at hand",
    )  # fmt: skip
    g.add_argument("--match-color", action="store_true", help="give restored faces the coarse colours of the input")
    g.add_argument(
        "--background", metavar="MODEL", help="enhance whole frames by this super-resolution model (spandrel)"
    )
    g.add_argument(
        "--scale", type=float, metavar="S", help="output size over input size (default: the model's, else 1)"
    )

    g = p.add_argument_group("output")
    g.add_argument("--codec", choices=get_args(Codec), default="h264", help="ffv1 is lossless, in .mkv (h264)")
    g.add_argument("--crf", type=_natural, default=18, help="quality of h264 and h265, lower is better (18)")
    g.add_argument("--preset", default="medium", help="their speed, ultrafast to veryslow (medium)")
    g.add_argument("--frames", action="store_true", help="write a folder of PNG files instead of a video")
    g.add_argument("--fps", type=float, default=25, help="frame rate of a folder of frames (25)")
    g.add_argument("--compare", action="store_true", help="write NAME.compare too: input and output side by side")
    g.add_argument("--plots", action="store_true", help="write NAME.plots too: landmarks before and after smoothing")
    g.add_argument("--overwrite", action="store_true", help="restore videos of a folder again that are finished")
    return p


def jobs(source: Path, output: Path, frames: bool, codec: str) -> list[tuple[Path, Path]]:
    """(input, output) of every video that IN and OUT mean.

    Raises:
        UserError: IN is missing or holds nothing to restore, or OUT is a file for a folder of videos, or looks like a
            file of a kind that is not written.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    _check_name(output, frames)
    to_file = output.suffix.lower() in WRITTEN and not output.is_dir()
    videos = sorted(f for f in source.rglob("*") if f.suffix.lower() in VIDEO_SUFFIXES and not f.name.startswith("."))
    if source.is_file() or not videos:
        if source.is_dir() and not list_images(source):
            raise UserError(f"{source}: holds neither videos nor images")
        # A folder of frames becomes a folder of frames, unless OUT is named as a video.
        single = output if frames or to_file else output / _name(source, codec)
        return [(source, output if source.is_dir() and not to_file else single)]
    if to_file:
        raise UserError(f"{output}: {source} holds {len(videos)} videos; name a folder for them")
    if output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{output}: lies inside {source}; name a folder elsewhere")
    names = [(v.relative_to(source).parent, v.stem if frames else _name(v, codec)) for v in videos]
    pairs = [(v, output / folder / name) for v, (folder, name) in zip(videos, names, strict=True)]
    times = Counter(out for _, out in pairs)

    def apart(video: Path, out: Path) -> Path:  # a.avi beside a.mkv
        same = times[out] > 1 and video.name != out.name
        return out.with_name(video.name + ("" if frames else out.suffix)) if same else out

    return [(video, apart(video, out)) for video, out in pairs]


def share(pairs: Sequence[tuple[Path, Path]], rank: int, world: int) -> list[tuple[Path, Path]]:
    """The videos of one rank: sorted by size, dealt out like cards."""
    return sorted(pairs, key=lambda pair: -_bytes(pair[0]))[rank::world]


def command(argv: Sequence[str] | None) -> int:
    args = parser().parse_args(argv)
    check(args)
    from keep.inference.video.job import refuse_overwriting

    to_console()
    signal.signal(signal.SIGTERM, stop)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    source, output = Path(args.input), Path(args.output)
    pending = jobs(source, output, args.frames, args.codec)
    many = len(pending) > 1 or pending[0][0] != source
    refuse_overwriting(pending, settings_of(args))
    if many:
        # Shared out before the finished ones are left out: ranks that start at other times must agree.
        mine = share(pending, rank, world)
        pending = [pair for pair in mine if args.overwrite or not pair[1].exists()]
        if finished := len(mine) - len(pending):
            log.info(f"{finished} of {len(mine)} videos are finished already (--overwrite restores them again)")
    elif rank:
        return 0
    if world == 1 or not many:
        return restore_all(pending, args, many)[0] if pending else 0
    # A launcher ends all ranks when one of them fails, so failed videos are no failure of the rank: they are listed.
    failures = output / f"failed.rank{rank}.txt"
    for old in [failures, *(output.glob("failed.rank*.txt") if rank == 0 else ())]:
        if old == failures or old not in [output / f"failed.rank{n}.txt" for n in range(world)]:
            old.unlink(missing_ok=True)
    problems = restore_all(pending, args, many)[1] if pending else []
    if problems:
        write_file(failures, "".join(f"{line}\n" for line in problems))
        log.warning(f"rank {rank}: {len(problems)} of {len(pending)} videos failed or were broken, see {failures}")
    return 0


def settings_of(args: argparse.Namespace) -> Any:
    """The :class:`keep.inference.video.Settings` of the command line."""
    from keep.inference.video import Settings

    return Settings(**{f.name: getattr(args, f.name) for f in fields(Settings)})


def restore_all(pending: Sequence[tuple[Path, Path]], args: argparse.Namespace, many: bool) -> tuple[int, list[str]]:
    """Restore these videos; the exit status, and a line for each that failed or was broken."""
    from keep.inference.video import restore_video

    tools, settings = build_tools(args), settings_of(args)
    status, problems = 0, []
    for number, (video, out) in enumerate(pending, 1):
        try:
            with Bar(f"{number}/{len(pending)} {video.name}" if many else video.name) as bar:
                summary = restore_video(video, out, tools, settings, bar)
        except (UserError, OSError) as error:
            if not many:
                raise
            reason = str(error).replace("\n", " ")
            print(f"error: {reason}", file=sys.stderr)
            problems.append(f"{video}: failed: {reason}")
            status = 2
            continue
        log.info("\n".join(summary.lines()))
        if summary.broken:
            problems.append(f"{video}: restored, but {summary.notes[-1]}")
            status = status or BROKEN
    return status, problems


def build_tools(args: argparse.Namespace) -> Any:
    """The networks that the command line names, on its device."""
    from keep.config.plugins import import_registered
    from keep.config.registry import DETECTORS, IDENTITIES
    from keep.faces.detect import default_detector
    from keep.faces.parse import find_parser
    from keep.inference.api import load_restorer
    from keep.inference.video import Enhancer, KeepNetwork, Tools
    from keep.inference.weights import DEFAULT
    from keep.utils.devices import prepare

    import_registered()
    device = prepare(_device(args.device), args.threads, 0)
    restorer = load_restorer(
        args.weights or DEFAULT, device, args.dtype,
        window=args.window, fidelity=args.fidelity, compile=args.compile,
    )  # fmt: skip
    if not args.weights:
        size = restorer.net.image_size
        log.info(
            f"weights: {DEFAULT}, shipped with this package: a small network ({size}×{size} pixels a face, for "
            "research), for small and badly degraded faces; -w KEEP takes the authors' (512×512)"
        )
    tools = Tools(KeepNetwork(restorer))
    if not args.aligned:
        tools.detector = (cli.network(DETECTORS, args.detector) if args.detector else default_detector()).to(device)
        tools.identity = cli.network(IDENTITIES, args.identity).to(device) if args.identity else None
        tools.parser = find_parser(args.parser, device)
        tools.enhancer = Enhancer(args.background, device) if args.background else None
    return tools


class Bar:
    """A progress bar for each pass: frames a second, time left, the tracks in work."""

    def __init__(self, name: str) -> None:
        self.name, self._what, self._bar = name, "", None

    def __enter__(self) -> "Bar":
        return self

    def __call__(self, what: str, done: int, total: int | None, tracks: list[int]) -> None:
        from tqdm import tqdm

        if what != self._what:
            self.close()
            self._what, self._bar = what, tqdm(total=total, desc=f"{self.name}: {what}", unit=" frames", delay=2)
        assert self._bar is not None
        if tracks:
            self._bar.set_postfix_str("track " + ", ".join(map(str, tracks)), refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __exit__(self, *_: Any) -> None:
        self.close()


def _device(name: str) -> str:
    local = os.environ.get("LOCAL_RANK")
    if name == "auto" and local is not None:
        import torch

        if torch.cuda.is_available():
            return f"cuda:{int(local) % torch.cuda.device_count()}"
    return name


def _name(source: Path, codec: str) -> str:
    """File name of the output in a folder. Matroska takes any stream; MP4 only some."""
    suffix = source.suffix.lower() if source.is_file() else ".mp4"
    return source.stem + (suffix if codec != "ffv1" and suffix in (".mp4", ".mov", ".m4v") else ".mkv")


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _check_name(output: Path, frames: bool) -> None:
    if output.is_dir():
        return
    suffix = output.suffix.lower()
    if frames and suffix in VIDEO_SUFFIXES:
        raise UserError(f"{output}: --frames writes a folder of images; name a folder")
    if suffix not in WRITTEN and re.fullmatch(r"\.[a-z]\w*", suffix):
        known = ", ".join(sorted(WRITTEN))
        raise UserError(f"{output}: {suffix} is not written, only {known}; a folder of this name must be there before")


def check(args: argparse.Namespace) -> None:
    """Refuse values that make no sense."""
    from keep.degradation.codec import Preset

    cores = os.cpu_count() or 1
    checks = [
        ("IN", args.input, "a name, not empty"),
        ("--output", args.output, "a name, not empty"),
        ("--fidelity", 0 <= args.fidelity <= 1, "from 0 to 1"),
        ("--sigma", 0 <= args.sigma < math.inf, "a number from 0"),
        ("--min-face", 0 <= args.min_face < math.inf, "a number from 0"),
        ("--scale", args.scale is None or 0 < args.scale <= 8, "above 0 and at most 8"),
        ("--fps", RATES[0] <= args.fps <= RATES[1], f"from {RATES[0]:g} to {RATES[1]:g}"),
        ("--crf", args.crf <= 51, "from 0 to 51"),
        ("--threads", args.threads <= cores, f"from 0 to {cores}, the cores of this machine"),
        ("--preset", args.preset in get_args(Preset), "one of " + ", ".join(get_args(Preset))),
    ]
    for name, fine, expected in checks:
        if not fine:
            raise UserError(f"{name}: must be {expected}")
    if args.aligned and (args.background or args.scale):
        raise UserError("--aligned restores the crops themselves: --background and --scale do not apply")


def _positive(text: str) -> int:
    return _whole(text, 1)


def _natural(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least}, not {text}")
    return int(text)


def stop(*_: Any) -> None:
    """For SIGTERM: what is unfinished is removed on the way out, as after Ctrl-C."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
