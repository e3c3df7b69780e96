"""2,000 changed options files: each is taken or refused in plain words, soon. scripts/soak/options.py checks 20,000."""

import time
from collections import Counter
from pathlib import Path

import pytest

from keep.config.reading import load
from keep.config.schema import TestConfig, TrainConfig
from keep.utils.errors import UserError
from scripts.soak import options

FILES = 2000


def test_no_change_of_a_shipped_file_is_a_traceback_or_a_hang() -> None:
    counts = Counter[str]()
    for number, (said, _, text) in enumerate(options.check_files(FILES, seed=1, limit=20)):
        assert said in ("taken", "refused"), f"file {number}: {said}\n{text[:3000]}"
        counts[said] += 1
    assert min(counts.values()) > FILES // 10  # neither all harmless nor all hopeless


def test_the_shipped_files_are_found_with_their_schemas_and_can_be_read_elsewhere(tmp_path: Path) -> None:
    found = options.shipped()
    assert sum(schema is TrainConfig for schema in found.values()) >= 20
    assert sum(schema is TestConfig for schema in found.values()) >= 5
    for path, schema in list(found.items())[::4]:
        copy = tmp_path / "copy.yml"
        copy.write_text(options.with_full_bases(path))
        assert load(copy, [], schema) == load(path, [], schema)


def test_what_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def raises(error: BaseException):
        def load(*_: object) -> None:
            raise error

        return load

    def busy(*_: object) -> None:
        end = time.process_time() + 60
        while time.process_time() < end:
            pass

    path = tmp_path / "x.yml"
    for fake, kind in (
        (raises(TypeError("x")), "traceback"), (raises(RecursionError()), "traceback"),
        (raises(MemoryError()), "traceback"),
        (raises(UserError("two\nlines")), "message"), (raises(UserError("a\x1b[31m")), "message"), (busy, "hang"),
        (raises(UserError("x.yml has 2 mistakes:\n  a\n  b")), "refused"),
    ):  # fmt: skip
        monkeypatch.setattr(options, "load", fake)
        assert options.outcome(path, [], TrainConfig, limit=0.2).partition(":")[0] == kind
    monkeypatch.setattr(options, "load", raises(KeyError("x")))
    assert options.soak(["--files", "3"]) == 1
    assert "tracebacks 3, hangs 0" in capsys.readouterr().out
