"""The file of compiled kernels. PyTorch's collection of artifacts is replaced: nothing is compiled here."""

from types import SimpleNamespace

import pytest
import torch
from networks import tiny

from keep.inference.fast.compiled import HEADER, CompileCache, read

SHAPE, CPU = (1, 1, 3, 32, 32), torch.device("cpu")


class Artifacts:
    """What PyTorch has compiled, and what it was given."""

    def __init__(self) -> None:
        self.names, self.loaded = ["a"], []

    def save(self):
        return b"kernels " + "".join(self.names).encode(), SimpleNamespace(artifacts={"inductor": list(self.names)})

    def load(self, content: bytes):
        self.loaded.append(content)
        return SimpleNamespace(artifacts={"inductor": list(content.removeprefix(b"kernels ").decode())})


@pytest.fixture
def artifacts(monkeypatch) -> Artifacts:
    made = Artifacts()
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", made.save)
    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", made.load)
    return made


def test_a_second_process_reads_what_the_first_wrote(artifacts, tmp_path):
    first = CompileCache(tiny(), tmp_path)
    first.load(SHAPE, CPU)
    assert artifacts.loaded == []
    first.save("first frame")
    artifacts.names.append("b")
    first.save("first frame")  # nothing new is compiled for a call that was seen
    (path,) = tmp_path.iterdir()
    assert read(path) == b"kernels a"
    first.save("second frame")
    assert read(path) == b"kernels ab"
    written = path.stat().st_mtime_ns

    second = CompileCache(tiny(), tmp_path)
    second.load(SHAPE, CPU)
    second.load(SHAPE, CPU)
    second.save("first frame")
    assert artifacts.loaded == [b"kernels ab"]
    assert path.stat().st_mtime_ns == written  # the file has all of it
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", [b"", b"something else", HEADER + bytes(32) + b"kernels a"])
def test_a_damaged_file_is_one_line_and_is_replaced(artifacts, tmp_path, caplog, damage):
    cache = CompileCache(tiny(), tmp_path)
    path = tmp_path / f"{cache.key(SHAPE, CPU)}.bin"
    path.write_bytes(damage)
    cache.load(SHAPE, CPU)
    assert artifacts.loaded == []
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: compiled kernels are damaged; compiling again"
    ]
    cache.save("first frame")
    assert read(path) == b"kernels a"


def test_a_folder_that_cannot_be_written_is_one_line(artifacts, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = CompileCache(tiny(), tmp_path / "file")
    cache.load(SHAPE, CPU)
    cache.save("first frame")
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert "compiled kernels are not kept" in caplog.records[-1].getMessage()


def test_the_key_holds_what_kernels_depend_on(monkeypatch):
    base = CompileCache(tiny()).key(SHAPE, CPU)
    assert CompileCache(tiny()).key(SHAPE, CPU) == base
    assert CompileCache(tiny()).key((2, *SHAPE[1:]), CPU) != base
    assert CompileCache(tiny().bfloat16()).key(SHAPE, CPU) != base
    assert CompileCache(tiny(channels=32)).key(SHAPE, CPU) != base
    monkeypatch.setattr(torch, "__version__", "3.0")
    assert CompileCache(tiny()).key(SHAPE, CPU) != base
