"""The precision that a test runs in, and how exact its numbers can then be."""

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What ``--dtype`` takes."""
ATOL = {torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Absolute tolerance of a few operations on values of order one."""


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Compute in ``dtype`` where that is safe, as training does; float32 leaves everything as it is."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
    """Assert that all values differ by at most ``atol``, or by what ``dtype`` can resolve, if that is more.

    ``actual`` may have another shape with as many elements.
    """
    torch.testing.assert_close(actual.float(), expected.float().view(actual.shape), atol=max(atol, ATOL[dtype]), rtol=0)
