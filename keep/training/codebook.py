"""Health of a codebook: which codes are in use, and how those that are not come back."""

import torch
import torch.distributed as dist
from torch import Tensor


class CodeUse:
    """Counts how often each code is chosen; :meth:`read` tells it as usage and perplexity, and starts afresh.

    Args:
        size: number of codes.
        device: where the codes are.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(size, dtype=torch.int64, device=device)

    def add(self, codes: Tensor) -> None:
        """Code indices, int64, of any shape. Does not wait for the device."""
        flat = codes.flatten()
        self.counts.scatter_add_(0, flat, torch.ones_like(flat))

    def read(self) -> dict[str, float]:
        """Since the last call: ``used``, the number of codes chosen at all, and ``perplexity``, exp(−Σ p log p).

        Perplexity is the number of codes that, chosen equally often, would be as varied: from 1 to ``size``; 0 when
        nothing was counted. To tell it of all ranks, sum ``counts`` over them before.
        """
        counts = self.counts.double()
        p = counts / counts.sum().clamp(min=1)
        perplexity = torch.special.entr(p).sum().exp() * (counts.sum() > 0)
        result = {"used": float((counts > 0).sum()), "perplexity": float(perplexity)}
        self.counts.zero_()
        return result


@torch.no_grad()
def revive(codes: Tensor, chosen: Tensor, tokens: Tensor) -> Tensor:
    """Move the codes that no token chose to random tokens, in place; ``chosen`` becomes all False.

    No two codes move to one token: where there are fewer tokens than dead codes, the others wait. With several
    processes a code is dead when no rank chose it, and all end with rank 0's codes.

    Args:
        codes: the codebook (K, C).
        chosen: (K,) bool: codes that a token chose since the last call.
        tokens: encoder outputs (N, C).

    Returns:
        Indices of the codes that moved.
    """
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if several:
        everywhere = chosen.to(torch.uint8)
        dist.all_reduce(everywhere, dist.ReduceOp.MAX)
        chosen.copy_(everywhere)
    dead = (~chosen).nonzero()[:, 0]
    dead = dead[torch.randperm(len(dead), device=dead.device)[: len(tokens)]]
    codes[dead] = tokens[torch.randperm(len(tokens), device=tokens.device)[: len(dead)]].to(codes.dtype)
    if several:
        dist.broadcast(dead, 0)
        dist.broadcast(codes, 0)
    chosen.zero_()
    return dead
