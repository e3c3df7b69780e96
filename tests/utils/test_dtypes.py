"""Names of floating-point types, and the fastest one of a device."""

import pytest
import torch

from keep.utils.dtypes import parse_dtype, pick_dtype
from keep.utils.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "expected"),
    [(True, True, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_auto_follows_the_processor(monkeypatch, amx, avx512_bf16, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    assert pick_dtype("auto", CPU) == expected
    assert pick_dtype("float16", CPU) == torch.float16


@pytest.mark.parametrize(("supported", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_follows_the_gpu(monkeypatch, supported, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert pick_dtype("auto", torch.device("cuda")) == expected


def test_other_names_are_refused():
    with pytest.raises(UserError, match=r"'int8' is not one of float32, .*fp16, auto$"):
        pick_dtype("int8", CPU)
    with pytest.raises(UserError, match=r"'auto' is not one of float32, .*fp16$"):
        parse_dtype("auto")
