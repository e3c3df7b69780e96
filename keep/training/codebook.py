"""Health of a codebook: how many codes are in use, and how evenly."""

import torch
from torch import Tensor


class CodeUse:
    """Counts how often each code is chosen; :meth:`read` returns usage and perplexity and resets the counts.

    Args:
        size: number of codes.
        device: where the codes are.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(size, dtype=torch.int64, device=device)

    def add(self, codes: Tensor) -> None:
        """Count code indices, int64, of any shape. Does not wait for the device."""
        flat = codes.flatten()
        self.counts.scatter_add_(0, flat, torch.ones_like(flat))

    def read(self) -> dict[str, float]:
        """Since the last call: ``used``, the number of codes chosen at all, and ``perplexity``, exp(−Σ p log p).

        Perplexity is the number of equally frequent codes with the same entropy: from 1 to ``size``; 0 when nothing
        was counted. For the use in all processes, sum ``counts`` over them first.
        """
        counts = self.counts.double()
        p = counts / counts.sum().clamp(min=1)
        perplexity = torch.special.entr(p).sum().exp() * (counts.sum() > 0)
        result = {"used": float((counts > 0).sum()), "perplexity": float(perplexity)}
        self.counts.zero_()
        return result
