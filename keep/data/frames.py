"""uint8 frames and the networks' range."""

import torch


def to_float(frames: torch.Tensor) -> torch.Tensor:
    """uint8 in 0…255 → float32 in [-1, 1]."""
    return frames.float() / 127.5 - 1


def to_uint8(frames: torch.Tensor) -> torch.Tensor:
    """Float in [-1, 1] (clamped) → uint8 in 0…255, rounded."""
    return ((frames.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
