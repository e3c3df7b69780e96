"""One atomic write: complete under its name, or nothing."""

import os
from pathlib import Path

import pytest

from keep.utils.io import AtomicWrite, link_or_copy, remove_hidden_files, remove_leftovers, write_file


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_written_in_a_new_folder_with_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "new" / "a.txt", "ä")
    finally:
        os.umask(before)
    assert (tmp_path / "new/a.txt").read_bytes() == "ä".encode()
    assert (tmp_path / "new/a.txt").stat().st_mode & 0o777 == 0o640
    assert names(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("durable", [False, True])
def test_a_failed_write_leaves_the_older_file_and_nothing_else(error, durable, tmp_path):
    (tmp_path / "a.tar.gz").write_text("old")
    with pytest.raises(error), AtomicWrite(tmp_path / "a.tar.gz", durable) as temporary:  # noqa: PT012
        assert temporary.suffix == ".gz"
        temporary.write_text("new")
        raise error
    assert (tmp_path / "a.tar.gz").read_text() == "old"
    assert names(tmp_path) == ["a.tar.gz"]


def test_a_folder_appears_complete_or_not_at_all(tmp_path):
    for fails in (True, False):
        try:
            with AtomicWrite(tmp_path / "frames") as temporary:
                temporary.mkdir()
                (temporary / "0.png").touch()
                if fails:
                    raise OSError
        except OSError:
            assert names(tmp_path) == []
    assert names(tmp_path / "frames") == ["0.png"]


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    first, second = AtomicWrite(tmp_path / "a"), AtomicWrite(tmp_path / "a")
    first.temporary.write_text("1")
    second.temporary.write_text("2")
    second.commit()
    first.discard()
    assert (tmp_path / "a").read_text() == "2"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_replaces_its_target(links, tmp_path, monkeypatch):
    def no_links(*_: object) -> None:
        raise OSError

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    for _ in range(2):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "a"
    assert (tmp_path / "b").samefile(tmp_path / "a") == links
    assert names(tmp_path) == ["a", "b"]


def test_leftovers_are_removed_with_the_next_write(tmp_path):
    write = AtomicWrite(tmp_path / "a.txt")
    write.temporary.touch()
    (tmp_path / ".other").touch()
    remove_leftovers(tmp_path / "a.txt")
    assert names(tmp_path) == [".other"]
    remove_hidden_files(tmp_path)
    assert names(tmp_path) == []
