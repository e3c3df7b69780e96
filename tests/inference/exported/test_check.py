"""What the comparison of an export with its network reports."""

import math

import numpy as np
import pytest

from keep.inference.exported.check import Difference, largest
from keep.utils.errors import UserError, first_line, reported


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_the_largest_difference(value):
    assert largest(np.array([0.0, value, -2.0])) == math.inf
    assert largest(np.array([0.0, 1.0, -2.0])) == 2


@pytest.mark.parametrize(
    ("kind", "output", "codes", "small"),
    [
        ("float32", 1e-4, 0, True), ("float32", 2e-3, 0, False), ("float32", 1e-4, 1, False),
        ("float32", math.inf, 0, False), ("float16", 0.2, 3, True), ("float16", math.inf, 0, False),
    ],
)  # fmt: skip
def test_how_far_an_export_may_differ(kind, output, codes, small):
    assert Difference(4, output, 0.0, codes).small(kind) == small


def test_an_error_of_a_library_is_one_line():
    assert first_line(ValueError()) == "ValueError"
    with pytest.raises(UserError, match=r"^compiling: no compiler$"), reported("compiling"):
        raise RuntimeError("no compiler\nmore")
