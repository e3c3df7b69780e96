"""Names of the floating-point types that networks run in."""

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
