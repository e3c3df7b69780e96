"""Stage III: CFT and CFA, on degraded clips with image, adversarial and temporal losses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from keep.archs.public import from_public, layout_of
from keep.config.registry import MODELS, Arch, Flow, Loss
from keep.degradation.resize import upsample
from keep.flow.warp import consistency_mask
from keep.models.base import Batch, Recipe, Slot, Terms, fill_keep, freeze, frozen
from keep.models.vqgan_model import require_gan_loss
from keep.utils.errors import UserError
from keep.utils.weight_files import State, fill


@MODELS.register()
class VideoModel(Recipe):
    """Stage III, eq. (8): L_III = λ_1 L_1 + λ_per L_per + λ_adv L_adv + λ_temp L_temp.

    Trains CFT and CFA alone. The temporal loss, eq. (7), warps with the flow of the ground truth and masks what
    fails the forward–backward check. The discriminator, eq. (5), sees the clip as a volume. ``pretrained`` needs
    ``keep`` (stage II's checkpoint, or the authors' file) and takes ``discriminator``.

    Args:
        net: ``KEEP``.
        flow: estimator of the ground truth's flow, for the temporal loss.
        pixel: L_1.
        temporal: L_temp; null leaves it out.
        discriminator: temporal 3-D PatchGAN; null trains without the adversarial term.
        perceptual: L_per; null leaves it out.
        gan: L_adv; needed with a discriminator.
        gan_start: step at which the adversarial term begins.
        scale: the ×4 of eq. (9): how much smaller the LQ frames are.
        checkpoint_decoder: keep no activations of the decoder, CFT and CFA, and compute each frame's again in the
            backward pass: about a third more time for a fraction of the memory.
        cft: false is the ablation without CFT: it neither acts nor trains. Test it with the same option.
        cfa: false is the ablation without CFA.
        per_frame: the ablation without memory: every frame is a first frame, ẑ⁺_t = z̃_t, which leaves CFA out too.
            ``KEEPPerFrame`` tests it.
    """

    needs_lq = True
    gan: Any  # there whenever the discriminator is

    def __init__(
        self,
        net: Arch,
        flow: Flow,
        pixel: Loss,
        temporal: Loss | None = None,
        discriminator: Arch | None = None,
        perceptual: Loss | None = None,
        gan: Loss | None = None,
        gan_start: Annotated[int, Field(ge=0)] = 0,
        scale: int = 4,
        checkpoint_decoder: bool = False,
        cft: bool = True,
        cfa: bool = True,
        per_frame: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.flow = flow
        self.discriminator = discriminator
        self.pixel, self.perceptual, self.gan, self.temporal = pixel, perceptual, gan, temporal
        self.gan_start = gan_start
        self.scale = scale
        self.used = {"use_cft": cft, "use_cfa": cfa and not per_frame, "use_filter": not per_frame}
        require_gan_loss(self)
        freeze(net, flow)
        net.cft.requires_grad_(self.used["use_cft"])
        net.cfa.requires_grad_(self.used["use_cfa"])
        if not (self.used["use_cft"] or self.used["use_cfa"]):
            raise UserError("model: without cft and without cfa (per_frame leaves it out) nothing is left to train")
        net.checkpoint_decoder = checkpoint_decoder

    def slots(self) -> dict[str, Slot]:
        slots = {"keep": Slot(self._from_keep, "stage II's KEEP", required=True)}
        discriminator = self.discriminator
        if discriminator is not None:
            slots["discriminator"] = Slot(lambda state, path: fill(discriminator, state, path), "its discriminator")
        return slots

    def _from_keep(self, state: State, path: Path) -> None:
        if (layout_of(state) or "").startswith("public"):
            state = from_public(state)
        fill_keep(self.net, state, path)

    def phases(self) -> dict[str, int]:
        return {"start": 0} | ({"adversarial": self.gan_start} if self.discriminator and self.gan_start else {})

    def losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Terms]]:
        y = batch["gt"]
        states = self.net(upsample(batch["lq"], self.scale), grad="decoder", return_states=True, **self.used)
        out = states.output
        terms: Terms = {"pixel": self.pixel.weight * self.pixel(out, y)}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual.weight * self.perceptual(out.flatten(0, 1), y.flatten(0, 1))
        if self.temporal is not None:
            terms["temporal"] = self.temporal.weight * self.temporal(out, *self._flow_of_truth(y))
        critic = self.discriminator if step >= self.gan_start else None
        if critic is not None:
            with frozen(critic):
                terms["gan"] = self.gan.weight * self.gan.generator(critic(out))
        self.stats = {"kalman/gain": states.gains.mean()} if self.used["use_filter"] else {}
        self.codes = {"codebook": states.codes}
        yield "net", terms
        if critic is not None:
            real, fake = critic(y), critic(out.detach())
            yield "discriminator", {"d": self.gan.discriminator(real, fake)}

    @torch.no_grad()
    def _flow_of_truth(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Flow t → t−1 of the ground truth (B, T−1, 2, H, W), and where it passes the forward–backward check."""
        b, t, _, h, w = y.shape
        if t == 1:
            return y.new_zeros(b, 0, 2, h, w), y.new_zeros(b, 0, 1, h, w)
        current, previous = y[:, 1:].flatten(0, 1), y[:, :-1].flatten(0, 1)
        to_previous = self.flow(current, previous)
        mask = consistency_mask(to_previous, self.flow(previous, current))
        return to_previous.unflatten(0, (b, t - 1)), mask.unflatten(0, (b, t - 1))

    def restore(self, frames: torch.Tensor) -> torch.Tensor:
        """Restored frames."""
        return self.net(upsample(frames, self.scale), **self.used)
