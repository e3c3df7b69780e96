"""What the comparison of an export with its network reports."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keep import export as door
from keep.inference.exported.check import Difference, largest
from keep.utils.errors import UserError, first_line, last_line, reported


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_the_largest_difference(value):
    assert largest(np.array([0.0, value, -2.0])) == math.inf
    assert largest(np.array([0.0, 1.0, -2.0])) == 2


@pytest.mark.parametrize(
    ("kind", "output", "codes", "small"),
    [
        ("float32", 1e-4, 0, True), ("float32", 2e-3, 0, False), ("float32", 1e-4, 1, False),
        ("float32", math.inf, 0, False), ("float16", 0.2, 3, True), ("float16", math.inf, 0, False),
    ],
)  # fmt: skip
def test_how_far_an_export_may_differ(kind, output, codes, small):
    assert Difference(4, output, 0.0, codes).small(kind) == small


def test_a_file_that_computes_something_else_is_not_left(tmp_path, monkeypatch, capsys):
    manifest = SimpleNamespace(dtype="float32", image_size=8, takes_flow=False)
    monkeypatch.setattr(door, "load_keep", lambda *_: None)
    monkeypatch.setattr(door, "find", Path)
    monkeypatch.setattr(door, "export", lambda net, path, *_, **__: (path.write_bytes(b"new"), manifest)[1])
    monkeypatch.setattr(door, "compare", lambda net, path: Difference(4, 1.0, 0.0, 7))
    (tmp_path / "old.onnx").write_bytes(b"old")
    for name, options in (("new.onnx", []), ("old.onnx", ["--overwrite"])):
        assert door.main(["-o", str(tmp_path / name), *options]) == 2
        assert f"{name} is not written: it would not compute what the network does" in capsys.readouterr().err
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("old.onnx", b"old")]
    monkeypatch.setattr(door, "compare", lambda net, path: Difference(4, 0.0, 0.0, 0))
    assert door.main(["-o", str(tmp_path / "new.onnx")]) == 0
    assert (tmp_path / "new.onnx").read_bytes() == b"new"


def test_an_error_of_a_library_is_one_line():
    assert first_line(ValueError()) == "ValueError"
    with pytest.raises(UserError, match=r"^compiling: no compiler$"), reported("compiling"):
        raise RuntimeError("no compiler\nmore")
    with pytest.raises(UserError, match=r"^compiling: no operation X$"), reported("compiling", last_line):
        raise RuntimeError("Exception from core.cpp:1:\nno operation X\n\n")
