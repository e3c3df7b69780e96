"""Restorers that one regression trains from start to end: EDVR, BasicVSR, BasicVSR++, and any other arch of clips."""

from collections.abc import Iterator
from typing import Any

import torch

from keep.config.registry import MODELS, Arch, Loss
from keep.degradation.resize import upsample
from keep.models import base
from keep.models.base import (
    Batch,
    Recipe,
    Slot,
    Terms,
    adversarial_phases,
    check_gan,
    discriminator_slot,
)  # fmt: skip
from keep.models.clip_nets import restore_clip, upsampling_before
from keep.utils.errors import UserError, nearest
from keep.utils.ranges import CountOrNone, Scale


@MODELS.register()
class RegressionModel(Recipe):
    """A network trained on pairs of degraded and true clips: L = λ_pix L_pix + λ_per L_per + λ_adv L_adv.

    All weights of the network train that are not ``frozen``, from the first step or from that of ``part_start``.
    Slots of ``pretrained``, all optional: ``net``, a network to continue from, and ``discriminator``.

    Args:
        net: a network of clips (B, T, 3, h, w) in [-1, 1], such as ``EDVR``, ``BasicVSR``, ``BasicVSRPP`` or
            ``CodeFormer``. Its attribute ``scale`` (1 if it has none) is the factor from its input to its output. It
            returns all frames, (B, T, 3, H, W), or the middle one of a window, (B, 3, H, W).
        pixel: the distance of output and truth: ``Charbonnier`` or ``L1``.
        discriminator: scores of clips (``TemporalPatchGAN``) or of images (``PatchGAN``); null trains without the
            adversarial term.
        perceptual: such as ``LPIPS``; null trains without it.
        regions: more weight on parts of the face, such as ``FaceRegions``; null trains without it.
        gan: the adversarial loss; needed with a discriminator.
        gan_start: step at which the adversarial term begins.
        scale: how much smaller the LQ frames are than the truth. They are upsampled by what the network's own
            ``scale`` does not cover.
        part_start: part of the network → step at which it begins to train, such as ``{spynet: 5000}``; before, its
            weights stay as they are. ``train.lr_scale`` gives a part a smaller learning rate.
        frozen: parts of the network that do not train, such as a codebook and its generator.
    """

    needs_lq = True
    gan: Any  # None exactly when the discriminator is

    def __init__(
        self,
        net: Arch,
        pixel: Loss,
        discriminator: Arch | None = None,
        perceptual: Loss | None = None,
        regions: Loss | None = None,
        gan: Loss | None = None,
        gan_start: CountOrNone = 0,
        scale: Scale = 4,
        part_start: dict[str, CountOrNone] = {},  # noqa: B006, it is never changed
        frozen: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.net, self.discriminator = net, discriminator
        self.pixel, self.perceptual, self.regions, self.gan = pixel, perceptual, regions, gan
        self.gan_start, self.scale, self.part_start = gan_start, scale, dict(part_start)
        self.upsampling = upsampling_before(net, scale)
        self.min_frames = getattr(net, "window", None) or getattr(net, "min_frames", 1)
        self.unused_parameters = any(self.part_start.values())
        check_gan(self, gan)
        for part in frozen:
            self._part(part, "frozen").requires_grad_(False)
        for part in self.part_start:
            self._part(part, "part_start")

    def _part(self, name: str, option: str) -> torch.nn.Module:
        """The part of the network that an option names; it must have weights that train."""
        parts = {k: part for k, part in self.net.named_children() if any(p.requires_grad for p in part.parameters())}
        if name not in parts:
            hint = nearest(name, parts) or f"; parts: {', '.join(parts)}"
            raise UserError(f"model.{option}: {name}: no such part of the network trains{hint}")
        return parts[name]

    def slots(self) -> dict[str, Slot]:
        convert = getattr(self.net, "from_public", None)
        whole = Slot(f"a {type(self.net).__name__} to continue from")
        if convert is not None:
            whole = Slot(whole.what, convert=lambda state, _path: convert(state))
        return {"net": whole} | discriminator_slot(self)

    def phases(self) -> dict[str, int]:
        starts = {part: step for part, step in self.part_start.items() if step}
        return adversarial_phases(self, self.gan_start) | starts

    def losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Terms]]:
        y = batch["gt"]
        waiting = torch.nn.ModuleList(getattr(self.net, p) for p, start in self.part_start.items() if step < start)
        with base.frozen(waiting):
            out = self.net(upsample(batch["lq"], self.upsampling))
        if out.dim() == 4:  # the middle frame of the window
            out, y = out[:, None], y[:, y.shape[1] // 2, None]
        terms: Terms = {"pixel": self.pixel.weight * self.pixel(out, y)}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual.weight * self.perceptual(out.flatten(0, 1), y.flatten(0, 1))
        if self.regions is not None:
            terms["regions"] = self.regions.weight * self.regions(out, y)
        critic = self.discriminator if step >= self.gan_start else None
        if critic is not None:
            with base.frozen(critic):
                terms["gan"] = self.gan.weight * self.gan.generator(critic(self._judged(out)))
        yield "net", terms
        if critic is not None:
            real, fake = critic(self._judged(y)), critic(self._judged(out.detach()))
            yield "discriminator", {"d": self.gan.discriminator(real, fake)}

    def _judged(self, clip: torch.Tensor) -> torch.Tensor:
        """What the discriminator scores: the clip (B, T, 3, H, W), or its frames (B·T, 3, H, W)."""
        return clip if getattr(self.discriminator, "clips", False) else clip.flatten(0, 1)

    def restore(self, frames: torch.Tensor) -> torch.Tensor:
        """Restored frames."""
        return restore_clip(self.net, upsample(frames, self.upsampling))
