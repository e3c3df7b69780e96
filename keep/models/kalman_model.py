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
from keep.utils.weight_files import State


@MODELS.register()
class KalmanModel(Recipe):
    """Stage II, eq. (4): L_II = L_CE + L_2(z̃, sg(ẑ^q)).

    Trains E_L, T_Q and the Kalman filter network; E_H, codebook and generator are stage I's and frozen. The
    target codes are stage I's on the ground truth. As written in eq. (4) the feature term would train nothing
    (E_H is frozen), so it is taken between E_L's z̃ and the target's quantised features.

    Slots of ``pretrained``: ``vqgan`` (required), stage I's checkpoint; E_L starts from its encoder. ``keep``, a KEEP
    of this stage to continue from (the filter can use a prediction only once T_Q finds codes: a short run starts with
    ``per_frame``). ``codeformer``, E_L and T_Q of a CodeFormer with the same codebook.

    Args:
        net: ``KEEP``; CFT and CFA are off in this stage.
        cross_entropy: L_CE between the logits of T_Q and the target codes.
        feature: L_2 between z̃ and the target's quantised features.
        scale: the ×4 of eq. (9): how much smaller the LQ frames are.
        per_frame: train the ablation without memory: every frame is a first frame, ẑ⁺_t = z̃_t, and the Kalman filter
            network does not train. Test it with ``KEEPPerFrame``.
    """

    needs_lq = True

    def __init__(self, net: Arch, cross_entropy: Loss, feature: Loss, scale: int = 4, per_frame: bool = False) -> None:
        super().__init__()
        self.net = net
        self.cross_entropy, self.feature = cross_entropy, feature
        self.scale = scale
        self.used = {"use_cft": False, "use_cfa": False, "use_filter": not per_frame}
        self.min_frames = 1 if per_frame else 2  # the first frame has no prediction: the filter does not act on it
        freeze(net)
        for part in (net.lq_encoder, net.code_transformer, *([] if per_frame else [net.kalman_filter])):
            part.requires_grad_(True)

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
        states = self.net(lq, **self.used, grad="codes", return_states=True)
        self.stats = {"codes/right": (states.codes == codes).float().mean()}
        if self.used["use_filter"]:
            self.stats["kalman/gain"] = states.gains.detach().mean()
        self.codes = {"codebook": states.codes, "codebook_target": codes}
        yield (
            "net",
            {
                "cross_entropy": self.cross_entropy.weight * self.cross_entropy(states.logits, codes),
                "feature": self.feature.weight * self.feature(states.z_obs, z_q),
            },
        )

    def restore(self, frames: torch.Tensor) -> torch.Tensor:
        """Restored frames, with CFT and CFA off."""
        return self.net(upsample(frames, self.scale), **self.used)
