"""Stage I: dead codes move to tokens."""

import torch
import torch.distributed as dist

from keep.models.vqgan_model import revive
from keep.training.distributed import Ranks


def test_only_dead_codes_move_each_to_another_token() -> None:
    codes = torch.nn.Parameter(torch.arange(12.0).view(6, 2))
    before = codes.detach().clone()
    chosen = torch.tensor([True, False, True, False, False, True])
    tokens = 100 + torch.arange(10.0).view(5, 2)
    moved = revive(codes, chosen, tokens)
    assert sorted(moved.tolist()) == [1, 3, 4]
    assert torch.equal(codes[[0, 2, 5]], before[[0, 2, 5]])
    rows = [tuple(r) for r in codes[[1, 3, 4]].tolist()]
    assert len(set(rows)) == 3
    assert set(rows) <= {tuple(r) for r in tokens.tolist()}
    assert not chosen.any()


def test_with_fewer_tokens_than_dead_codes_the_others_stay() -> None:
    codes = torch.zeros(6, 1)
    moved = revive(codes, torch.zeros(6, dtype=torch.bool), torch.tensor([[7.0], [8.0]]))
    assert len(moved) == 2
    assert sorted(codes.flatten().tolist()) == [0, 0, 0, 0, 7, 8]


def test_a_codebook_in_full_use_does_not_change() -> None:
    codes = torch.ones(3, 2)
    assert len(revive(codes, torch.ones(3, dtype=torch.bool), torch.zeros(4, 2))) == 0
    assert torch.equal(codes, torch.ones(3, 2))


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)
    codes = torch.zeros(4, 1)
    chosen = torch.tensor([True, False, False, False] if rank == 0 else [False, True, False, False])
    moved = revive(codes, chosen, 1 + rank + torch.rand(9, 1), Ranks(rank, 2))
    torch.save({"codes": codes, "moved": moved}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_move_the_same_codes_to_the_same_tokens(tmp_path) -> None:
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    assert torch.equal(first["codes"], second["codes"])
    assert first["moved"].tolist() == second["moved"].tolist()
    assert sorted(first["moved"].tolist()) == [2, 3]
    assert (first["codes"][2:] >= 1).all()
    assert (first["codes"][2:] < 2).all()  # rank 0's tokens
