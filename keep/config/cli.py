"""What the entry points share: command-line arguments, and the report of a mistake."""

import argparse
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from keep.config import arguments, reading
from keep.config.explain import explain, json_schema
from keep.config.registry import Registry
from keep.config.schema import TestConfig, TrainConfig
from keep.utils import cluster
from keep.utils.errors import UserError
from keep.utils.launch import launched_ranks
from keep.utils.signals import interrupted_by
from keep.utils.starting import ENDING, INTERRUPTED
from keep.utils.version import __version__

Config = TypeVar("Config", TrainConfig, TestConfig)


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, like every other mistake, and has ``--version``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.add_argument("--version", action="version", version=f"keep-vfsr {__version__}")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def network(registry: Registry, text: str) -> Any:
    """The network given as ``NAME`` or ``NAME=FILE``, where FILE holds its weights.

    Raises:
        UserError: an unknown name, a file for a network that has none, or no file for one that needs it.
    """
    name, _, file = text.partition("=")
    cls = registry[name]
    weights = inspect.signature(cls).parameters.get("weights")
    if file and weights is None:
        raise UserError(f"{name} takes no file: give {name}, not {text}")
    if not file and weights is not None and weights.default is weights.empty:
        raise UserError(f"{name} needs its file: {name}=FILE")
    return cls(**({"weights": Path(file)} if file else {}))


def parser(program: str, description: str) -> Parser:
    """``-opt``, ``--set``, ``--explain`` and ``--schema``."""
    p = Parser(prog=program, description=description)
    p.add_argument("-opt", "--opt", metavar="FILE", help="options file (YAML)")
    p.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="override an option; can be repeated"
    )
    p.add_argument("--explain", action="store_true", help="list every option with type, value and meaning, then exit")
    p.add_argument("--schema", action="store_true", help="print the JSON schema of the options files, then exit")
    return p


def add_engine(parser: argparse.ArgumentParser, what: str) -> None:
    """``--engine``, ``--ray-cpus`` and ``--ray-gpus``; ``what`` the workers do."""
    g = parser.add_argument_group("engine")
    g.add_argument(
        "--engine", choices=("local", "ray"), default="local",
        help=f"local: this process; ray: workers of Ray {what}, on this machine or the cluster of $RAY_ADDRESS (local)",
    )  # fmt: skip
    g.add_argument(
        "--ray-cpus", type=arguments.whole(1, 1024), metavar="N", help="CPU cores, and threads, of each worker (1)"
    )
    g.add_argument(
        "--ray-gpus", type=arguments.number(0, 1024), metavar="F",
        help="GPUs of each worker; 0.5: two workers share one (1 where the cluster has GPUs, else 0)",
    )  # fmt: skip


def check_engine(args: argparse.Namespace, device: str) -> None:
    """Raise UserError for options of :func:`add_engine` that do not fit together, or to ``device``."""
    if args.engine == "local":
        for name in ("ray_cpus", "ray_gpus"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} needs --engine ray")
        return
    if args.ray_gpus is not None and args.ray_gpus > 1 and args.ray_gpus % 1:
        raise UserError(f"--ray-gpus: more than one GPU must be a whole number, not {args.ray_gpus:g}")
    if ":" in device:
        raise UserError(f"--engine ray: Ray chooses the GPU of each worker: use the device cuda, not {device}")
    if device == "cpu" and args.ray_gpus:
        raise UserError("--ray-gpus: the device is cpu, so a worker needs no GPU")
    if launched_ranks()[1] > 1:
        raise UserError("--engine ray starts its workers itself: use it without torchrun")
    cluster.check_installed()


def read_options(args: argparse.Namespace, schema: type[Config]) -> Config | None:
    """The checked options, or None after ``--explain`` or ``--schema``."""
    if args.schema:
        print(json.dumps(json_schema(), indent=1))
        return None
    if args.explain:
        print(explain(schema, reading.load(args.opt, args.set, schema) if args.opt else None))
        return None
    if not args.opt:
        raise UserError("name an options file: -opt options/….yml (or --explain for the list of options)")
    return reading.load(args.opt, args.set, schema)


def run(
    command: Callable[[Sequence[str] | None], int | None],
    argv: Sequence[str] | None = None,
    stopped: int = INTERRUPTED,
    numbers: Sequence[signal.Signals] = ENDING,
) -> int:
    """Run ``command``.

    Args:
        command: takes the arguments; returns the exit status, or None for 0.
        argv: the arguments; None: those of the process.
        stopped: exit status after a signal that the command does not handle itself.
        numbers: the signals; unfinished files are removed on the way out.

    Returns:
        The exit status: 0, 2 after a user's mistake (reported in one line, no traceback), or ``stopped``.
    """
    try:
        with interrupted_by(numbers):
            return command(argv) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a read-only folder, a file where a folder should be
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in str(error):  # torch's MemoryError
            raise
        print("error: not enough memory for these sizes: reduce them", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return stopped


def check_apart(source: Path, out: Path) -> None:
    """Raise UserError if ``out`` is the folder ``source`` or inside it: what is written would be read."""
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        where = "is" if out.resolve() == source.resolve() else "is inside"
        raise UserError(f"{out} {where} {source}, the folder that is read: choose another folder to write")


def check_new(files: Iterable[Path], overwrite: bool) -> None:
    """Raise UserError if one of the files to write exists, unless ``--overwrite`` was given."""
    existing = [str(path) for path in files if path.exists()]
    if existing and not overwrite:
        verb = "exists" if len(existing) == 1 else "exist"
        raise UserError(f"{', '.join(existing)} {verb} already: name another output, or replace it with --overwrite")


def check_folder(path: Path, what: str = "") -> None:
    """Raise UserError unless ``path`` is a folder; ``what`` it should hold: `` of clips``."""
    if not path.is_dir():
        raise UserError(f"{path}: " + ("is a file, not a folder" if path.exists() else "no such folder") + what)


def check_output(folder: Path) -> None:
    """Raise UserError unless ``folder`` exists or can be created, and is writable. Creates nothing."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise UserError(f"{folder}: cannot be the output folder: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be the output folder: {existing} is not writable")
