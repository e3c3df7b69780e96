"""Device, threads and seed of a run."""

import torch

from keep.utils.errors import UserError


def pick_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``, checked to exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError
    except RuntimeError:
        raise UserError(f"device: {name!r} is not a device; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: this machine has no {name} ({torch.cuda.device_count()} CUDA devices)")
    return device


def prepare(device: str, threads: int, seed: int, local: int = 0) -> torch.device:
    """Seed torch, set its CPU threads and return the device.

    Args:
        device: see :func:`pick_device`.
        threads: CPU threads of torch; 0 keeps its default.
        seed: of the run.
        local: rank of this process on its machine: ``auto`` and ``cuda`` pick the GPU of that number.
    """
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    picked = pick_device(device)
    if picked.type == "cuda" and picked.index is None:
        picked = pick_device(f"cuda:{local}")
    if picked.type == "cuda":
        torch.cuda.set_device(picked)
    return picked
