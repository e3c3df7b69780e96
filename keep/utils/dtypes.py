"""Names of the floating-point types that networks run in, and which of them a device computes fastest in."""

import torch

from keep.utils.errors import UserError

DTYPES = {
    "float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
    "float16": torch.float16, "fp16": torch.float16,
}  # fmt: skip


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The type that a name of ``DTYPES`` stands for; a type itself is only checked.

    Raises:
        UserError: another name or type.
    """
    parsed = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if parsed is None or parsed not in DTYPES.values():
        raise UserError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    return parsed


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """As :func:`parse_dtype`; ``auto`` stands for bfloat16 where the device has instructions for it, else float32.

    Args:
        dtype: ``auto``, a name of ``DTYPES``, or a type.
        device: where the network will run.

    Raises:
        UserError: another name or type.
    """
    if dtype == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    try:
        return parse_dtype(dtype)
    except UserError as error:
        raise UserError(f"{error}, auto") from None


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes faster in bfloat16: GPUs since Ampere; processors with AMX or AVX512-BF16.

    Other devices emulate it, which is slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def autocast_dtype(kind: str) -> torch.dtype | None:
    """The type that autocast computes in on this type of device; None where it is off, or not known."""
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None
