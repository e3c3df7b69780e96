"""Stage II: LQ encoder, code transformer and Kalman filter network, on degraded clips."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from keep.archs.public import from_codeformer, from_vqgan
from keep.config.registry import MODELS, Arch, Loss
from keep.degradation.resize import upsample
from keep.models.base import Batch, Recipe, Slot, Terms, freeze, keep_slot
from keep.utils.errors import UserError
from keep.utils.ranges import CountOrNone, Scale
from keep.utils.weight_files import State


@MODELS.register()
class KalmanModel(Recipe):
    """Stage II, eq. (4): L_II = L_CE + L_2(z̃, sg(ẑ^q)).

    Trains E_L, T_Q and the Kalman filter network; E_H, codebook and generator are stage I's and frozen. The
    target codes are stage I's on the ground truth. As written in eq. (4) the feature term would train nothing
    (E_H is frozen), so it is taken between E_L's z̃ and the target's quantised features.

    Slots of ``pretrained``:

    - ``vqgan`` (required): stage I's checkpoint; E_L starts from its encoder.
    - ``keep``: a KEEP of this stage to continue from.
    - ``codeformer``: E_L and T_Q of a CodeFormer with the same codebook.

    Args:
        net: ``KEEP``, or a network with its parts and its ``forward``; CFT and CFA are off in this stage.
        cross_entropy: L_CE between the logits of T_Q and the target codes.
        feature: L_2 between z̃ and the target's quantised features.
        scale: the ×4 of eq. (9): how much smaller the LQ frames are.
        per_frame: train the ablation without memory: every frame is a first frame, ẑ⁺_t = z̃_t, and the Kalman filter
            network does not train. Test it with ``KEEPPerFrame``.
        filter_start: step at which the Kalman filter network begins to act and to train; before it, every frame is a
            first frame. The filter can use a prediction only once T_Q finds codes: one that trains from the start
            learns K = 1 and keeps it.
        checkpoint_encoder: keep no activations of E_L; the backward pass computes those of one frame of every clip at a
            time again. Much less memory, one more forward pass of E_L; gradients differ in rounding.
    """

    needs_lq = True

    def __init__(
        self,
        net: Arch,
        cross_entropy: Loss,
        feature: Loss,
        scale: Scale = 4,
        per_frame: bool = False,
        filter_start: CountOrNone = 0,
        checkpoint_encoder: bool = False,
    ) -> None:
        super().__init__()
        if per_frame and filter_start:
            raise UserError("model.filter_start: with model.per_frame the filter never acts; give one of the two")
        self.net = net
        self.cross_entropy, self.feature = cross_entropy, feature
        self.scale = scale
        self.min_frames = 1 if per_frame else 2  # the first frame has no prediction: the filter does not act on it
        self.per_frame, self.filter_start = per_frame, filter_start
        self.unused_parameters = filter_start > 0
        self.gain = GainWatch()
        freeze(net)
        for part in (net.lq_encoder, net.code_transformer, *([] if per_frame else [net.kalman_filter])):
            part.requires_grad_(True)
        net.checkpoint_encoder = checkpoint_encoder

    def slots(self) -> dict[str, Slot]:
        stage1 = ("hq_encoder", "lq_encoder", "codebook", "generator")
        codeformer = ("lq_encoder", "code_transformer")
        return {
            "vqgan": Slot("stage I's VQGAN", parts=stage1, convert=lambda s, _: from_vqgan(s), required=True),
            "keep": keep_slot(self.net, "a KEEP of stage II to continue from"),
            "codeformer": Slot(
                "a CodeFormer of the same codebook", parts=codeformer, convert=partial(self._codeformer, codeformer)
            ),
        }

    def _codeformer(self, parts: tuple[str, ...], state: State, path: Path) -> State:
        given = from_codeformer(state)
        codebook = given.get("codebook.embedding.weight")
        if codebook is None or not torch.equal(codebook, self.net.codebook.embedding.weight):
            raise UserError(f"{path}: its codebook is not that of pretrained.vqgan; T_Q would predict other codes")
        return {k: v for k, v in given.items() if k.split(".")[0] in parts}

    def phases(self) -> dict[str, int]:
        return {"start": 0} | ({"filter": self.filter_start} if self.filter_start else {})

    def _used(self, step: int) -> dict[str, bool]:
        """The parts of the network that act in step ``step``."""
        return {"use_cft": False, "use_cfa": False, "use_filter": not self.per_frame and step >= self.filter_start}

    @torch.no_grad()
    def _target(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """ẑ^q (B, T, C, h, w) and its codes (B, T, h·w) of the ground truth, by stage I's encoder and codebook."""
        z = self.net.hq_encoder(y.flatten(0, 1))
        codes = self.net.codebook.nearest(z)
        z_q = self.net.codebook.lookup(codes, *z.shape[-2:])
        return z_q.unflatten(0, y.shape[:2]), codes.unflatten(0, y.shape[:2])

    def losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Terms]]:
        z_q, codes = self._target(batch["gt"])
        lq = upsample(batch["lq"], self.scale)
        used = self._used(step)
        states = self.net(lq, **used, grad="codes", return_states=True)
        self.stats = {"codes/right": (states.codes == codes).float().mean()}
        if used["use_filter"]:
            self.stats["kalman/gain"] = states.gains.detach().mean()
            self.gain.add(self.stats["kalman/gain"], step)
        self.codes = {"codebook": states.codes, "codebook_target": codes}
        yield (
            "net",
            {
                "cross_entropy": self.cross_entropy.weight * self.cross_entropy(states.logits, codes),
                "feature": self.feature.weight * self.feature(states.z_obs, z_q),
            },
        )

    def warnings(self) -> list[str]:
        return self.gain.warnings()

    def restore(self, frames: torch.Tensor) -> torch.Tensor:
        """Restored frames, with CFT and CFA off, and the filter off as long as it does not train."""
        return self.net(upsample(frames, self.scale), **self._used(self.last_step))


class GainWatch:
    """Detects a filter that uses only new frames (K = 1) or only predictions (K = 0): it hardly learns any more.

    The mean gains of the steps are summed on the device, and read once per ``window`` steps.
    """

    low, high, window = 0.02, 0.98, 500

    def __init__(self) -> None:
        self.saturated = False
        self._sum, self._count, self._first, self._last = torch.zeros(()), 0, 0, 0

    def add(self, gain: torch.Tensor, step: int) -> None:
        """Count the mean gain of a batch of step ``step``."""
        if self._count == 0:
            self._sum, self._first = torch.zeros_like(gain, dtype=torch.float32), step
        self._sum = self._sum + gain
        self._count, self._last = self._count + 1, step

    def warnings(self) -> list[str]:
        """A line if the gain became saturated in the window that has ended; nothing while it stays saturated."""
        steps = self._last - self._first + 1
        if self._count == 0 or steps < self.window:
            return []
        mean = (self._sum / self._count).item()
        self._count = 0
        before, self.saturated = self.saturated, not self.low <= mean <= self.high
        if before or not self.saturated:
            return []
        use = "new frames" if mean > self.high else "predictions"
        return [
            f"the mean gain of the last {steps} steps is {mean:.3f}: the Kalman filter uses only {use}, and hardly "
            "learns from here; start again with a later model.filter_start or a lower train.lr_scale.kalman_filter"
        ]
