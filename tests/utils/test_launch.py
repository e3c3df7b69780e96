"""keep/utils/launch.py: ranks in the environment."""

import pytest

from keep.utils.errors import UserError
from keep.utils.launch import NAMES, launched_ranks


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("complete", [False, True])
def test_without_a_launcher_there_is_one_process(complete: bool) -> None:
    assert launched_ranks(complete) == (0, 1, 0)


@pytest.mark.parametrize("complete", [False, True])
def test_a_launcher_s_ranks_are_read(monkeypatch: pytest.MonkeyPatch, complete: bool) -> None:
    for name, value in zip(NAMES, "351", strict=True):
        monkeypatch.setenv(name, value)
    assert launched_ranks(complete) == (3, 5, 1)


def test_a_job_array_need_not_set_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched_ranks() == (1, 2, 0)
    with pytest.raises(UserError, match="must set RANK, WORLD_SIZE, LOCAL_RANK to numbers; got"):
        launched_ranks(complete=True)


@pytest.mark.parametrize(
    ("rank", "world", "message"),
    [("2", "2", "RANK=2 must be"), ("-1", "1", "RANK=-1"), ("x", "2", "numbers; got {'RANK': 'x'")],
)
def test_a_rank_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, rank: str, world: str, message: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(UserError, match=message):
        launched_ranks()


def test_a_rank_without_a_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match="less than WORLD_SIZE=1"):
        launched_ranks()
    assert launched_ranks(complete=True) == (0, 1, 0)
