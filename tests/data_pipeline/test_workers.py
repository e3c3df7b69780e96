"""Data workers that the system ends are reported in one line."""

import os
import signal
from typing import Any

import pytest
import torch

from keep.data.sampler import clip_loader, make_loader
from keep.data.workers import ended_line, watched_workers
from keep.utils.errors import UserError


class Fatal:
    """A worker that loads clip 2 ends itself."""

    def __init__(self, end: Any) -> None:
        self.end = end

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        if key[1] == 2:
            self.end()
        return {"gt": torch.tensor(key[1])}


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("validation", [False, True])
def test_a_killed_worker_is_named_with_what_to_do(validation) -> None:
    data: Any = Fatal(killed)
    loader = clip_loader(data, 0, range(4), 2) if validation else make_loader(data, 0, 1, stop=4, workers=2)
    line = r"a data worker \(process \d+\) was ended by the system \(Killed\), most often .*: lower data.workers"
    with pytest.raises(UserError, match=line), watched_workers():
        list(loader)


def test_a_worker_that_ends_itself_is_named() -> None:
    data: Any = Fatal(lambda: os._exit(3))
    line = r"a data worker \(process \d+\) was ended \(no signal is known\): set data.workers=0 to see the reason.*"
    with pytest.raises(UserError, match=line), watched_workers():
        list(make_loader(data, 0, 1, stop=4, workers=1))


def test_full_shared_memory_is_named() -> None:
    message = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are …"
    with pytest.raises(UserError, match=r"process 7.*enlarge /dev/shm"), watched_workers():
        raise RuntimeError(message)
    assert "(Segmentation fault): set data.workers=0" in ended_line("7", "Segmentation fault")


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="another"), watched_workers():
        raise RuntimeError("another")
