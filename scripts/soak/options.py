"""Change options files at random and check that each is taken or refused in plain words, in bounded time.

    python -m scripts.soak.options                    # 20,000 files
    python -m scripts.soak.options --files 500 --seed 7

Every file is a shipped one with one to three changes: a value replaced by one of another type or far out of range, a
line removed, repeated or indented, a key misspelt, characters changed, aliases, tags and nests put in. Some get an
override, too. The options are read and checked; nothing is built. Prints the counts, and each file that raises anything
but a ``UserError``, has a message of strange form, loads to other options after it was written out, or takes longer
than ``--limit`` seconds. The exit status is 1 if there is one. A file is made from the seed and its number.
"""  # fmt: skip

import contextlib
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from keep.config import arguments
from keep.config.cli import Parser, run
from keep.config.plugins import import_registered
from keep.config.reading import load, read_yaml, to_yaml
from keep.config.schema import TestConfig, TrainConfig
from keep.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

NEST = 1500
VALUES = (
    "", "~", "true", "no", "0", "-1", "0010", "1e5", "1e999", ".nan", "-.inf", "0x7fffffff", "2147483648", "12:30",
    "9" * 5000, "-" + "9" * 5000, "0." + "1" * 5000, "2024-99-99", "2024-01-01T99:99:99Z", "''", "'a b'", '"\\0"',
    '"\\ud800"', '"\\UFFFFFFFF"', '"\\n"', "~nobody-of-this-name/x", "/dev/null", "x" * 5000, "=", "<<", "!x y",
    "!!int abc", "!!binary x", "!!python/object/apply:os.system [ls]", "!!set {a, b}", "[]", "{}", "[1, 2]",
    "[[1], {a: [b]}]", "{a: 1}", "{type: KEEP}", "{type: [KEEP]}", "{type: {KEEP: 1}}", "{type: }", "{<<: 5}",
    "&a [*a]", "&a {b: *a}", "*nothing", "{_base_: 5}", "{_base_: nothing.yml}", "[" * NEST + "]" * NEST,
    "{a: " * NEST + "}" * NEST, "[" * NEST, "- - -", "? x", "| x", "@", "`", "%", "{{ x }}", "a: b: c",
)  # fmt: skip
"""What a value is replaced by."""


def bomb(rng: random.Random) -> str:
    """Aliases of aliases, as lists or merges."""
    lines = ["b0: &b0 {k: v}"]
    for i in range(1, rng.randint(2, 10)):
        ten = ", ".join([f"*b{i - 1}"] * 10)
        lines.append(f"b{i}: &b{i} [{ten}]" if rng.random() < 0.5 else f"b{i}: &b{i} {{<<: [{ten}]}}")
    return "\n".join(lines) + "\n"


def replace_value(text: str, rng: random.Random) -> str:
    found = list(re.finditer(r"(?<=: )[^\s,{}\[\]]+|(?<=[\[,] )[^\s,{}\[\]:]+|(?<=: )(\[[^\]]*\]|\{[^}]*\})", text))
    return _replaced(text, found, rng.choice(VALUES), rng)


def replace_number(text: str, rng: random.Random) -> str:
    value = rng.choice((-1, 1)) * 10 ** rng.randint(-40, 40) * rng.randint(1, 9)
    found = list(re.finditer(r"(?<![\w.])\d+(\.\d*)?(e-?\d+)?", text))
    return _replaced(text, found, rng.choice((str(value), f"{float(value):g}")), rng)


def misspell(text: str, rng: random.Random) -> str:
    found = list(re.finditer(r"[\w]+(?=:)", text))
    words = ("", "type", "_base_", "plugins", "<<", "=", "?", "name", "a" * 3000, "'a\\nb'", '"\\0"', "[x]", "0", "*x")
    return _replaced(text, found, rng.choice(words), rng)


def _replaced(text: str, found: Sequence[re.Match[str]], word: str, rng: random.Random) -> str:
    if not found:
        return text
    match = rng.choice(found)
    return text[: match.start()] + word + text[match.end() :]


def change_lines(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    change = rng.randrange(5)
    if change == 0:
        del lines[i]
    elif change == 1:
        lines.insert(j, lines[i])
    elif change == 2:
        lines[i] = " " * rng.randint(1, 4) + lines[i]
    elif change == 3:
        lines[i] = lines[i].lstrip()
    else:
        lines[i], lines[j] = lines[j], lines[i]
    return "".join(lines)


def change_characters(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 4)):
        i = rng.randrange(len(text) + 1)
        new = rng.choice(":{}[]&*!|>'\"%@#,?-=~ \t\n\0\x07\x1b\x7f\x85\u2028\ufeff\ud800ä☃0")
        text = text[:i] + new * rng.randint(0, 3) + text[i + rng.randint(0, 2) :]
    return text


def append(text: str, rng: random.Random) -> str:
    nest = "\n".join(" " * i + "a:" for i in range(200))
    extra = rng.choice((
        bomb(rng), f"{nest}\n", "train: &t {<<: *t}\n", "---\nx: 1\n", "_base_: [nothing.yml]\n", "#" * 300_000,
        "plugins: [nothing.py]\n", "<<: {seed: 5}\n", "}\n", "...\n",
    ))  # fmt: skip
    return extra + text if rng.random() < 0.2 else text + extra


CHANGES: tuple[tuple[Callable[[str, random.Random], str], int], ...] = (
    (replace_value, 8), (replace_number, 3), (misspell, 3), (change_lines, 3), (change_characters, 3), (append, 1),
)  # fmt: skip


def mutated(text: str, rng: random.Random) -> str:
    """``text`` with one to three changes."""
    for _ in range(rng.choices((1, 2, 3), (6, 2, 1))[0]):
        change = rng.choices([c for c, _ in CHANGES], [w for _, w in CHANGES])[0]
        text = change(text, rng) or text
    return text


def drawn_overrides(text: str, rng: random.Random) -> list[str]:
    """For a file in four: one override, of a key of the file or of none."""
    if rng.random() < 0.75:
        return []
    keys = ["name", "seed", "train.optim.lr", "model.net", "model.type", "data.train.degradation.0", "x.y"]
    return [f"{rng.choice(keys + re.findall(r'[a-z_]+(?=:)', text))}={rng.choice(VALUES)}"]


def shipped() -> dict[Path, Any]:
    """The shipped options files of a run, and the schema of each."""
    found: dict[Path, Any] = {}
    for path in sorted((ROOT / "options").glob("*/[!_]*.yml")):  # a file of a name with _ is a part of others
        data = read_yaml(path).data
        if {"model", "train"} <= data.keys():
            found[path] = TrainConfig
        elif "restorers" in data and "metrics" in data:
            found[path] = TestConfig
    return found


class TooSlow(BaseException):
    """Not an Exception: nothing on the way may take it for an error of the file."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`TooSlow` in the block after so many seconds of computing."""

    def stop(*_: object) -> None:
        raise TooSlow

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def outcome(path: Path, overrides: Sequence[str], schema: Any, limit: float) -> str:
    """``taken``, ``refused``, or what is wrong: ``hang``, ``traceback``, ``message``, ``copy``, with details."""
    try:
        with limited(limit):
            config = load(path, overrides, schema)
            copy = path.with_name("copy.yml")
            copy.write_text(to_yaml(config), encoding="utf-8")
            return "taken" if load(copy, [], schema) == config else "copy: the written options differ"
    except UserError as error:
        first, *rest = str(error).split("\n")
        plain = all(line.isprintable() and len(line) < 2000 for line in (first, *(line.strip() for line in rest)))
        listed = all(line.startswith("  ") for line in rest)
        return "refused" if plain and listed and len(rest) <= 21 else f"message: {error!r}"
    except TooSlow:
        return f"hang: more than {limit:g} s"
    except BaseException:
        return f"traceback: {traceback.format_exc()}"


def soak(argv: Sequence[str] | None = None) -> int:
    p = Parser(prog="scripts.soak.options", description="Change options files at random and check the answers.")
    p.add_argument("--files", type=arguments.count, default=20_000, help="number of files (20000)")
    p.add_argument("--seed", type=arguments.seed, default=0, help="seed of the changes (0)")
    p.add_argument("--limit", type=arguments.number(0, 3600, above=True), default=10, help="seconds for a file (10)")
    args = p.parse_args(argv)
    import_registered()
    counts, seconds = Counter[str](), [0.0]
    checked = check_files(args.files, args.seed, args.limit)
    for number, (said, spent, text) in enumerate(tqdm(checked, total=args.files, delay=5, unit=" files")):
        kind = said.partition(":")[0]
        counts[kind] += 1
        seconds.append(spent)
        if kind not in ("taken", "refused"):
            print(f"file {number}: {said}\n{text[:3000]}\n", flush=True)
    print(
        f"{args.files} files, seed {args.seed}: {counts['taken']} taken, {counts['refused']} refused; tracebacks "
        f"{counts['traceback']}, hangs {counts['hang']}, strange messages {counts['message']}, copies that differ "
        f"{counts['copy']}; computing took {sum(seconds):.0f} s, of the slowest file {max(seconds):.2f} s"
    )
    return int(counts["taken"] + counts["refused"] < args.files)


def check_files(files: int, seed: int, limit: float) -> Iterator[tuple[str, float, str]]:
    """For each file: the outcome, the seconds of computing, and the text."""
    choices = list(shipped().items())
    with tempfile.TemporaryDirectory() as name:
        for number in range(files):
            rng = random.Random(f"{seed} {number}")
            source, schema = choices[number % len(choices)]
            path = Path(name) / "x.yml"
            text = mutated(with_full_bases(source), rng)
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
            before = time.process_time()
            said = outcome(path, drawn_overrides(text, rng), schema, limit)
            yield said, time.process_time() - before, text


def with_full_bases(source: Path) -> str:
    """The text of a shipped file; its ``_base_`` files with their folder, so that it can be read elsewhere."""
    text = source.read_text(encoding="utf-8")
    return re.sub(r"(?<=[\s\[,])(\.\./)*[\w/]*\w+\.yml", lambda m: str((source.parent / m[0]).resolve()), text)


if __name__ == "__main__":
    sys.exit(run(soak))
