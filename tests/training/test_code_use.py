"""keep/training/codebook.py: usage and perplexity."""

import pytest
import torch

from keep.training.codebook import CodeUse


def test_perplexity_is_the_number_of_equally_used_codes() -> None:
    use = CodeUse(8)
    use.add(torch.tensor([[0, 3], [5, 7]]))
    assert use.read() == {"used": 4, "perplexity": pytest.approx(4)}
    use.add(torch.tensor([2, 2, 2]))
    assert use.read() == {"used": 1, "perplexity": pytest.approx(1)}
    use.add(torch.tensor([0, 0, 0, 1]))
    p = torch.tensor([0.75, 0.25], dtype=torch.float64)
    assert use.read() == {"used": 2, "perplexity": pytest.approx(float((-(p * p.log()).sum()).exp()))}


def test_counts_add_up_until_they_are_read() -> None:
    use = CodeUse(4)
    assert use.read() == {"used": 0, "perplexity": 0}
    use.add(torch.tensor([0]))
    use.add(torch.tensor([1]))
    assert use.read()["used"] == 2
    assert use.read()["used"] == 0
