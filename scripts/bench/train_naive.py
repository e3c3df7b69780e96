"""A naive stage III step for comparison: every parameter takes part in autograd."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from keep.archs.keep import KEEP, KEEPOutput
from keep.flow.warp import warp
from keep.training.run import Run


def all_in_autograd(run: Run) -> None:
    """Make a stage III step naive: every parameter requires a gradient, and every network is part of the graph.

    Only flow estimators stay outside: they have no gradients inside. The optimizers stay as they are, so both steps
    train CFT, CFA and the discriminator by the same gradients.
    """
    run.recipe.requires_grad_(True)
    run.recipe.net.forward = partial(naive_forward, run.recipe.net)


def naive_forward(net: KEEP, lq: Tensor, flows: Tensor | None = None, **_: Any) -> KEEPOutput:
    """:meth:`KEEP.forward` (Algorithm 1) without any ``no_grad`` or ``detach``."""
    z_obs, features = net.observe(lq)
    gains = net.kalman_filter(z_obs)
    flows = net.estimate_flows(lq) if flows is None else flows
    outputs, logits, memory = [], [], {}
    for t in range(lq.shape[1]):
        z = z_obs[:, t]
        if t:
            z_prior = net.hq_encoder(warp(outputs[-1], flows[:, t - 1]))
            z = (1 - gains[:, t]) * z_prior + gains[:, t] * z
        logits.append(net.code_transformer(z))
        z_q = net.codebook.lookup(logits[-1].argmax(-1), *z.shape[-2:])
        output, memory = net.decode(z_q, {scale: f[:, t] for scale, f in features.items()}, memory)
        outputs.append(output)
    stacked = torch.stack(logits, dim=1)
    none = z_obs[:, :0]
    return KEEPOutput(torch.stack(outputs, dim=1), z_obs, gains, none, z_obs, stacked, stacked.argmax(-1), none)
