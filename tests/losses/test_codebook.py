import pytest
import torch
from precision import close

from keep.losses.codebook import Codebook, CodeCrossEntropy


def test_codebook_terms_move_one_side_each(device, dtype):
    z = torch.full((2, 4), 1.0, device=device, dtype=dtype, requires_grad=True)
    z_q = torch.full((2, 4), 3.0, device=device, dtype=dtype, requires_grad=True)
    loss = Codebook(commitment=0.25)(z, z_q)
    assert loss.item() == pytest.approx(4 + 0.25 * 4)
    loss.backward()
    assert z.grad is not None
    assert z_q.grad is not None
    close(z_q.grad, torch.full_like(z, 2 * 2 / 8), dtype=dtype)
    close(z.grad, torch.full_like(z, -0.25 * 2 * 2 / 8), dtype=dtype)


def test_the_default_commitment_is_the_papers():
    z, z_q = torch.zeros(3), torch.ones(3)
    assert Codebook()(z, z_q) == 2


def test_cross_entropy(device, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 7, generator=generator).to(device)
    codes = torch.randint(7, (2, 3, 5), generator=generator).to(device)
    expected = -logits.log_softmax(-1).gather(-1, codes[..., None]).mean()
    close(CodeCrossEntropy()(logits.to(dtype), codes), expected, dtype=dtype)
    smooth = 0.9 * expected - 0.1 * logits.log_softmax(-1).mean()
    close(CodeCrossEntropy(label_smoothing=0.1)(logits.to(dtype), codes), smooth, dtype=dtype)
