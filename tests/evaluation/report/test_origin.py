from pathlib import Path

import numpy as np

import keep
from keep.evaluation.report import origin
from keep.utils.downloads import sha256


def test_hashes_of_every_file_in_nested_options(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"x")
    found = origin.file_hashes([{"a": (tmp_path / "net.pth",), "b": tmp_path / "none.pth"}, 3])
    assert list(found) == [str(tmp_path / "net.pth")]
    assert found[str(tmp_path / "net.pth")].startswith("2d711642")


def test_the_authors_weights_are_known_by_the_digits_of_their_name():
    assert origin.file_hashes(Path("KEEP")) == {"KEEP": "b76feb75"}


def test_files_that_no_option_names_are_seen_to_be_opened(tmp_path):
    path = tmp_path / "default.npz"
    np.savez(path, a=np.ones(2))
    with origin.opened() as outer:
        with origin.opened() as found:
            np.load(path).close()
            (tmp_path / "notes.txt").write_text("no weights")
        assert not outer
    assert origin.file_hashes([], found) == {str(path): sha256(path)}
    assert origin.file_hashes(path, found) == {str(path): sha256(path)}  # once, though named and opened
    with origin.opened() as later:
        pass
    np.load(path).close()
    assert not later


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(b"x")
    first = origin.file_hashes(path)
    path.write_bytes(b"longer")
    assert origin.file_hashes(path) != first


def test_a_download_is_told_by_its_final_name(tmp_path):
    with origin.opened() as found:
        (tmp_path / "net.pth.part").write_bytes(b"x")
    assert found == {tmp_path / "net.pth"}


def test_the_code_is_known_by_its_contents(tmp_path, monkeypatch):
    def hashed() -> str:
        origin.code.cache_clear()
        return origin.code()

    before = hashed()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.py").write_text("x = 1")
    monkeypatch.setattr(keep, "__file__", str(tmp_path / "__init__.py"))
    first = hashed()
    assert first not in (before, "")
    (tmp_path / "sub/a.py").write_text("x = 2")
    assert hashed() != first
    monkeypatch.undo()
    origin.code.cache_clear()


def test_a_launch_is_known_by_what_torchrun_slurm_or_the_user_say(monkeypatch):
    for name in ("KEEP_LAUNCH", "TORCHELASTIC_RUN_ID", "SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert origin.launch() == ""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert origin.launch() == "7"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("MASTER_PORT", "29500")
    first = origin.launch()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert origin.launch() != first
    monkeypatch.setenv("KEEP_LAUNCH", "mine")
    assert origin.launch() == "mine"
