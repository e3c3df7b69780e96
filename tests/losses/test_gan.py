import math

import pytest
import torch
from precision import ATOL

from keep.losses.gan import GAN

REAL, FAKE = [2.0, 0.0], [-3.0, 1.0]


@pytest.mark.parametrize(
    ("kind", "generator", "discriminator"),
    [
        ("hinge", 1.0, (0 + 1) / 2 + (0 + 2) / 2),
        ("lsgan", (16 + 0) / 2, (1 + 1) / 2 + (9 + 1) / 2),
        (
            "vanilla",
            (math.log1p(math.exp(3)) + math.log1p(math.exp(-1))) / 2,
            (math.log1p(math.exp(-2)) + math.log(2) + math.log1p(math.exp(-3)) + math.log1p(math.exp(1))) / 2,
        ),
    ],
)
def test_values(kind, generator, discriminator, device, dtype):
    gan, (real, fake) = GAN(kind=kind), torch.tensor([REAL, FAKE], device=device, dtype=dtype)
    assert gan.generator(fake).item() == pytest.approx(generator, abs=ATOL[dtype])
    assert gan(fake) == gan.generator(fake)
    assert gan.discriminator(real, fake).item() == pytest.approx(discriminator, abs=ATOL[dtype])


@pytest.mark.parametrize("kind", ["hinge", "vanilla", "lsgan"])
def test_the_generator_is_pulled_towards_real(kind, device, dtype):
    logits = torch.tensor([-0.5], device=device, dtype=dtype, requires_grad=True)
    (grad,) = torch.autograd.grad(GAN(kind=kind).generator(logits), logits)
    assert grad < 0


def test_vanilla_is_finite_for_large_logits(device, dtype):
    logits = torch.tensor([-1e4, 1e4], device=device, dtype=dtype)
    assert GAN(kind="vanilla").generator(logits).isfinite()
    assert GAN(kind="vanilla").discriminator(logits, logits).isfinite()


def test_adaptive_weight():
    layer = torch.tensor([1.0, 1.0], requires_grad=True)
    reconstruction, gan = (3 * layer).sum(), (0.5 * layer).sum()
    factor = GAN().adaptive_weight(reconstruction, gan, layer)
    assert factor.item() == pytest.approx(6, rel=1e-3)
    assert not factor.requires_grad
    assert GAN(max_weight=2).adaptive_weight(reconstruction, gan, layer) == 2
    assert GAN(max_weight=1, scale=0.8).adaptive_weight(reconstruction, gan, layer).item() == pytest.approx(0.8)
    assert GAN().adaptive_weight(reconstruction, 0 * gan, layer) == 1e4
    (reconstruction + factor * gan).backward()  # the graphs are still there
