"""Adversarial losses, and the adaptive weight of VQGAN."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keep.config.registry import LOSSES
from keep.utils.ranges import Factor, Weight


@LOSSES.register()
class GAN(nn.Module):
    """Adversarial loss on discriminator logits: 𝓛_D of eq. (5), 𝓛_adv of eq. (6).

    ``vanilla`` is eq. (5) and (6) with D = sigmoid(logits), in the non-saturating form; the second term of eq. (5) is
    taken as log(1 − D). ``hinge`` is the loss of the public code. ``lsgan`` is least squares to 1 and 0.

    Args:
        weight: factor of the generator's term in its total.
        kind: which adversarial loss.
        max_weight: largest adaptive weight, before ``scale``. VQGAN: 1e4; CodeFormer: 1.
        scale: factor of the adaptive weight. CodeFormer: 0.8.
    """

    def __init__(
        self,
        weight: Weight = 1.0,
        kind: Literal["hinge", "vanilla", "lsgan"] = "hinge",
        max_weight: Factor = 1e4,
        scale: Factor = 1.0,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.kind = kind
        self.max_weight, self.scale = max_weight, scale

    def forward(self, fake_logits: Tensor) -> Tensor:
        """The same as :meth:`generator`."""
        return self.generator(fake_logits)

    def generator(self, fake_logits: Tensor) -> Tensor:
        """Logits of any shape for generated images → scalar that the generator minimises."""
        if self.kind == "hinge":
            return -fake_logits.mean()
        if self.kind == "vanilla":
            return F.softplus(-fake_logits).mean()
        return (fake_logits - 1).square().mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Logits of any shape for real and for (detached) generated images → scalar, the sum of both terms."""
        if self.kind == "hinge":
            return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
        if self.kind == "vanilla":
            return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        return (real_logits - 1).square().mean() + fake_logits.square().mean()

    def adaptive_weight(
        self,
        reconstruction_loss: Tensor,
        gan_loss: Tensor,
        last_layer: Tensor,
        mean: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> Tensor:
        """The factor that makes both gradients equally large at the generator's last layer (VQGAN, eq. 7).

        ‖∇ reconstruction‖ / (‖∇ gan‖ + 1e-4), gradients with respect to ``last_layer``, at most ``max_weight``, times
        ``scale``; a scalar without gradient. Both graphs are kept for the backward pass that follows. ``mean`` averages
        a gradient over the processes that share the batch.
        """
        pull = mean(torch.autograd.grad(reconstruction_loss, last_layer, retain_graph=True)[0]).norm()
        push = mean(torch.autograd.grad(gan_loss, last_layer, retain_graph=True)[0]).norm()
        return (pull / (push + 1e-4)).clamp(0, self.max_weight).detach() * self.scale
