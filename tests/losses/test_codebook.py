import pytest
import torch

from keep.losses.codebook import Codebook, CodeCrossEntropy


def test_codebook_terms_move_one_side_each():
    z = torch.full((2, 4), 1.0, requires_grad=True)
    z_q = torch.full((2, 4), 3.0, requires_grad=True)
    loss = Codebook(commitment=0.25)(z, z_q)
    assert loss.item() == pytest.approx(4 + 0.25 * 4)
    loss.backward()
    assert z.grad is not None
    assert z_q.grad is not None
    torch.testing.assert_close(z_q.grad, torch.full((2, 4), 2 * 2 / 8))
    torch.testing.assert_close(z.grad, torch.full((2, 4), -0.25 * 2 * 2 / 8))


def test_the_default_commitment_is_the_papers():
    z, z_q = torch.zeros(3), torch.ones(3)
    assert Codebook()(z, z_q) == 2


def test_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 7, generator=generator)
    codes = torch.randint(7, (2, 3, 5), generator=generator)
    expected = -logits.log_softmax(-1).gather(-1, codes[..., None]).mean()
    torch.testing.assert_close(CodeCrossEntropy()(logits, codes), expected)
    smooth = 0.9 * expected - 0.1 * logits.log_softmax(-1).mean()
    torch.testing.assert_close(CodeCrossEntropy(label_smoothing=0.1)(logits, codes), smooth)
