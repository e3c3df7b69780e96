"""Stage III: CFT and CFA, on degraded clips with image, adversarial and temporal losses."""

from collections.abc import Iterator
from typing import Any

import torch

from keep.config.registry import MODELS, Arch, Flow, Loss
from keep.degradation.resize import upsample
from keep.flow.warp import consistency_mask
from keep.models.base import (
    Batch,
    Recipe,
    Slot,
    Terms,
    adversarial_phases,
    check_gan,
    discriminator_slot,
    freeze,
    frozen,
    keep_slot,
)  # fmt: skip
from keep.utils.errors import UserError
from keep.utils.ranges import CountOrNone, Scale

Truth = tuple[torch.Tensor, torch.Tensor]
PIXELS_AT_ONCE = 32 * 512**2
"""Pixels of the frames that an estimator gets at once: more would need memory, and hardly be faster."""


def estimate(flow: Any, current: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    """Flow of pairs (N, 3, H, W), in one call up to :data:`PIXELS_AT_ONCE`."""
    pairs = max(1, PIXELS_AT_ONCE // current[0, 0].numel())
    parts = zip(current.split(pairs), previous.split(pairs), strict=True)
    return torch.cat([flow(*part) for part in parts])


@MODELS.register()
class VideoModel(Recipe):
    """Stage III, eq. (8): L_III = λ_1 L_1 + λ_per L_per + λ_adv L_adv + λ_temp L_temp.

    Trains only CFT and CFA. The temporal loss, eq. (7), warps with the flow of the ground truth and masks pixels that
    fail the forward–backward check. The discriminator, eq. (5), sees the clip as a volume. Slots of ``pretrained``:
    ``keep`` (required), stage II's checkpoint or the authors' file; ``discriminator``.

    Args:
        net: ``KEEP``, or a network with its ``cft``, ``cfa``, ``flownet`` and its ``forward``.
        flow: estimator of the ground truth's flow, for the temporal loss; null: that of ``net``.
        pixel: L_1.
        temporal: L_temp; null trains without it.
        discriminator: temporal 3-D PatchGAN; null trains without the adversarial term.
        perceptual: L_per; null trains without it.
        regions: more weight on parts of the face, such as ``FaceRegions``; null trains without it.
        identity: distance of the faces' embeddings, such as ``FaceIdentity``; null trains without it.
        gan: L_adv; needed with a discriminator.
        gan_start: step at which the adversarial term begins.
        scale: the ×4 of eq. (9): how much smaller the LQ frames are.
        checkpoint_decoder: keep no activations of the decoder, CFT and CFA; compute those of each frame again in the
            backward pass. About a third more time for a fraction of the memory.
        cft: false: the ablation without CFT, which neither acts nor trains. Test it with the same option.
        cfa: false: the ablation without CFA.
        per_frame: the ablation without memory: every frame is a first frame, ẑ⁺_t = z̃_t, and CFA is off too. Test it
            with ``KEEPPerFrame``.
    """

    needs_lq = True
    gan: Any  # None exactly when the discriminator is

    def __init__(
        self,
        net: Arch,
        pixel: Loss,
        flow: Flow | None = None,
        temporal: Loss | None = None,
        discriminator: Arch | None = None,
        perceptual: Loss | None = None,
        regions: Loss | None = None,
        identity: Loss | None = None,
        gan: Loss | None = None,
        gan_start: CountOrNone = 0,
        scale: Scale = 4,
        checkpoint_decoder: bool = False,
        cft: bool = True,
        cfa: bool = True,
        per_frame: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.flow = flow
        if temporal is not None and flow is None and net.flownet is None:
            raise UserError("model.flow: the temporal loss needs a flow estimator; name one here or in model.net.flow")
        self.discriminator = discriminator
        self.pixel, self.perceptual, self.regions, self.identity = pixel, perceptual, regions, identity
        self.gan, self.temporal = gan, temporal
        self.gan_start = gan_start
        self.scale = scale
        self.used = {"use_cft": cft, "use_cfa": cfa and not per_frame, "use_filter": not per_frame}
        self.min_frames = 2 if self.used["use_cfa"] else 1  # CFA does not act on the first frame
        check_gan(self, gan)
        freeze(net, *([] if flow is None else [flow]))
        net.cft.requires_grad_(self.used["use_cft"])
        net.cfa.requires_grad_(self.used["use_cfa"])
        if not (self.used["use_cft"] or self.used["use_cfa"]):
            raise UserError("model: without cft and cfa (per_frame turns cfa off) there is nothing to train")
        net.checkpoint_decoder = checkpoint_decoder

    def slots(self) -> dict[str, Slot]:
        return {"keep": keep_slot(self.net, "stage II's KEEP", required=True)} | discriminator_slot(self)

    def phases(self) -> dict[str, int]:
        return adversarial_phases(self, self.gan_start)

    def losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Terms]]:
        y, lq = batch["gt"], upsample(batch["lq"], self.scale)
        flows, truth = self._flows(lq, y)
        states = self.net(lq, flows, grad="decoder", return_states=True, **self.used)
        out = states.output
        terms: Terms = {"pixel": self.pixel.weight * self.pixel(out, y)}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual.weight * self.perceptual(out.flatten(0, 1), y.flatten(0, 1))
        if self.regions is not None:
            terms["regions"] = self.regions.weight * self.regions(out, y)
        if self.identity is not None:
            terms["identity"] = self.identity.weight * self.identity(out, y)
        if self.temporal is not None and truth is not None:
            terms["temporal"] = self.temporal.weight * self.temporal(out, *truth)
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
    def _flows(self, lq: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor | None, Truth | None]:
        """What the network and the temporal loss need of optical flow; each estimator is called once.

        Args:
            lq: the network's input (B, T, 3, H, W).
            y: the ground truth, of the same shape.

        Returns:
            the flow of ``lq``, (B, T−1, 2, H, W); None: the network estimates it, if it needs it, by its own estimator.
            For the temporal loss the flow of ``y``, and its mask of the forward–backward check (B, T−1, 1, H, W).
        """
        if self.temporal is None:
            return None, None
        b, t, _, h, w = y.shape
        if t == 1:
            return None, (y.new_zeros(b, 0, 2, h, w), y.new_zeros(b, 0, 1, h, w))
        clips = [y] if self.flow is not None or not self.used["use_filter"] else [y, lq]
        current = [clip[:, 1:].flatten(0, 1) for clip in clips]
        previous = [clip[:, :-1].flatten(0, 1) for clip in clips]
        flow = estimate(
            self.net.flownet if self.flow is None else self.flow,
            torch.cat([*current, previous[0]]),
            torch.cat([*previous, current[0]]),
        )
        to_previous, *own, to_current = flow.chunk(len(clips) + 1)
        mask = consistency_mask(to_previous, to_current)
        truth = to_previous.unflatten(0, (b, t - 1)), mask.unflatten(0, (b, t - 1))
        return own[0].unflatten(0, (b, t - 1)) if own else None, truth

    def restore(self, frames: torch.Tensor) -> torch.Tensor:
        """Restored frames."""
        return self.net(upsample(frames, self.scale), **self.used)
