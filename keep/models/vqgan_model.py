"""Stage I: the codebook and the autoencoder around it, on high-quality frames."""

from collections.abc import Iterator
from typing import Any

import torch

from keep.config.registry import MODELS, Arch, Loss
from keep.models.base import (
    Batch,
    OneProcess,
    Recipe,
    Slot,
    Terms,
    adversarial_phases,
    check_gan,
    discriminator_slot,
    frozen,
)  # fmt: skip
from keep.utils.ranges import CountOrNone


@MODELS.register()
class VQGANModel(Recipe):
    """Stage I, eq. (3): L_I = L_1 + L_per + L_adv + ‖sg(E_H(y)) − ẑ^q‖² + ‖E_H(y) − sg(ẑ^q)‖².

    Frames are trained as single images: a clip (B, T, …) is B·T images. Slots of ``pretrained``: ``vqgan`` and
    ``discriminator``, both optional.

    Args:
        net: the autoencoder: ``VQGAN``, or a network with its ``codebook``, ``last_layer`` and result of ``forward``.
        discriminator: 2-D PatchGAN; null trains without the adversarial term.
        pixel: L_1.
        perceptual: L_per; null trains without it.
        regions: more weight on parts of the face, such as ``FaceRegions``; null trains without it.
        identity: distance of the faces' embeddings, such as ``FaceIdentity``; null trains without it.
        gan: L_adv; needed with a discriminator.
        codebook: the two code terms.
        gan_start: step at which the adversarial term begins.
        adaptive: scale the adversarial term so that its gradient at the generator's last layer is as large as
            that of the reconstruction terms (VQGAN); its limits are options of ``gan``. Processes share one
            factor; each accumulated batch has its own.
        revive: every so many steps, codes that no token chose since the last time move to random tokens of the step, of
            all its batches and processes; 0: never. It prevents codebook collapse, which is likely with little data and
            in short runs. The averaged weights follow a moved code over 1 / (1 - train.ema) steps: keep ``revive`` well
            above that.
    """

    chosen: torch.Tensor
    _tokens: dict[int, list[torch.Tensor]]  # step → encoder outputs of its batches so far: where revived codes move
    gan: Any  # None exactly when the discriminator is

    def __init__(
        self,
        net: Arch,
        pixel: Loss,
        codebook: Loss,
        discriminator: Arch | None = None,
        perceptual: Loss | None = None,
        regions: Loss | None = None,
        identity: Loss | None = None,
        gan: Loss | None = None,
        gan_start: CountOrNone = 0,
        adaptive: bool = True,
        revive: CountOrNone = 0,
    ) -> None:
        super().__init__()
        self.net = net
        self.discriminator = discriminator
        self.pixel, self.perceptual, self.regions, self.identity = pixel, perceptual, regions, identity
        self.gan, self.codebook = gan, codebook
        self.gan_start = gan_start
        self.adaptive = adaptive
        self.keeps_graph = adaptive and discriminator is not None
        self.revive = revive
        self._tokens = {}
        self.register_buffer("chosen", torch.zeros(net.codebook.embedding.num_embeddings, dtype=torch.bool))
        check_gan(self, gan)

    def slots(self) -> dict[str, Slot]:
        return {"vqgan": Slot("a VQGAN to continue from")} | discriminator_slot(self)

    def phases(self) -> dict[str, int]:
        return adversarial_phases(self, self.gan_start)

    def losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Terms]]:
        y = batch["gt"].flatten(0, 1)
        out = self.net(y)
        terms: Terms = {"pixel": self.pixel.weight * self.pixel(out.reconstruction, y)}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual.weight * self.perceptual(out.reconstruction, y)
        if self.regions is not None:
            terms["regions"] = self.regions.weight * self.regions(out.reconstruction, y)
        if self.identity is not None:
            terms["identity"] = self.identity.weight * self.identity(out.reconstruction, y)
        reconstruction = sum(terms.values())
        terms["codebook"] = self.codebook.weight * self.codebook(out.z, out.z_q)
        critic = self.discriminator if step >= self.gan_start else None
        if critic is not None:
            with frozen(critic):
                gan = self.gan.generator(critic(out.reconstruction))
            if self.adaptive:
                gan = gan * self.gan.adaptive_weight(reconstruction, gan, self.net.last_layer, mean=self.ranks.mean)
            terms["gan"] = self.gan.weight * gan
        self.chosen[out.codes.flatten()] = True
        self.codes = {"codebook": out.codes}
        if self.revive and (step + 1) % self.revive == 0:
            self._tokens = {step: [*self._tokens.get(step, []), out.z.detach()]}
        yield "net", terms
        if critic is not None:
            real, fake = critic(y), critic(out.reconstruction.detach())
            yield "discriminator", {"d": self.gan.discriminator(real, fake)}

    def after_step(self, step: int) -> None:
        if self.revive and (step + 1) % self.revive == 0:
            shares = self.ranks.gather(torch.stack(self._tokens.pop(step)).float().cpu())  # by process (batches, N, …)
            tokens = torch.stack(shares, dim=1).flatten(0, 2)  # images in the order of the clips, (N, C, h, w)
            tokens = tokens.flatten(2).transpose(1, 2).flatten(0, 1).to(self.chosen.device)  # (N·h·w, C)
            revive(self.net.codebook.embedding.weight, self.chosen, tokens, self.ranks)

    def restore(self, frames: torch.Tensor) -> torch.Tensor:
        """Reconstruction of high-quality frames (B, T, 3, H, W)."""
        return self.net(frames.flatten(0, 1)).reconstruction.unflatten(0, frames.shape[:2])


@torch.no_grad()
def revive(
    codes: torch.Tensor, chosen: torch.Tensor, tokens: torch.Tensor, ranks: OneProcess | None = None
) -> torch.Tensor:
    """Move the codes that no token chose to random tokens, in place; ``chosen`` becomes all False.

    No two codes move to the same token: when there are fewer tokens than dead codes, the remaining codes stay. With
    several processes a code is dead when no process chose it, and all processes get the first one's codes.

    Args:
        codes: the codebook (K, C).
        chosen: (K,) bool: codes that a token chose since the last call.
        tokens: encoder outputs (N, C).
        ranks: collective operations over the processes; None: there is one process.

    Returns:
        Indices of the codes that moved.
    """
    ranks = ranks or OneProcess()
    chosen.copy_(ranks.max(chosen.to(torch.uint8)))
    dead = (~chosen).nonzero()[:, 0]
    dead = dead[torch.randperm(len(dead), device=dead.device)[: len(tokens)]]
    codes[dead] = tokens[torch.randperm(len(tokens), device=tokens.device)[: len(dead)]].to(codes.dtype)
    dead = ranks.broadcast(dead)
    codes.copy_(ranks.broadcast(codes))
    chosen.zero_()
    return dead
