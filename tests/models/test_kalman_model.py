"""Stage II: its pretrained weights, what trains, and its ablation."""

from functools import partial
from pathlib import Path

import pytest
import torch
from networks import build

from keep.archs.keep import KEEP
from keep.archs.public import to_public
from keep.losses.codebook import CodeCrossEntropy
from keep.losses.pixel import MSE
from keep.models.kalman_model import GainWatch, KalmanModel
from keep.utils.errors import UserError

SIZES = {
    "image_size": 32, "channels": 8, "ch_mult": (1, 2), "res_blocks": 1, "attn_resolutions": (16,), "latent_dim": 8,
    "codebook_size": 16,
}  # fmt: skip


def net() -> KEEP:
    return build(
        "KEEP", **SIZES, transformer_width=16, transformer_heads=2, transformer_layers=1, transformer_mlp_width=16,
        kalman_blocks=1, kalman_heads=2, kalman_head_dim=8, kalman_gain_blocks=1, cft_scales=(16,), cfa_scales=(16,),
    )  # fmt: skip


def recipe() -> KalmanModel:
    return KalmanModel(net(), CodeCrossEntropy(), MSE())


def test_a_vqgan_fills_four_parts_and_both_encoders_start_alike() -> None:
    vqgan, model = build("VQGAN", **SIZES), recipe()
    model.slots()["vqgan"].fill(model, vqgan.state_dict(), Path("stage1.pth"))
    for part in (model.net.hq_encoder, model.net.lq_encoder):
        assert all(torch.equal(a, b) for a, b in zip(part.parameters(), vqgan.encoder.parameters(), strict=True))
    assert torch.equal(model.net.codebook.embedding.weight, vqgan.codebook.embedding.weight)
    assert torch.equal(model.net.generator.last_layer, vqgan.generator.last_layer)


def test_a_codeformer_gives_lq_encoder_and_code_transformer_if_the_codebook_is_the_same() -> None:
    source, model = net(), recipe()
    public = to_public(source.state_dict())
    names = ("encoder.", "quantize.", "generator.", "position_emb", "feat_emb.", "ft_layers.", "idx_pred_layer.")
    codeformer = {k: v for k, v in public.items() if k.startswith(names)}
    fill = partial(model.slots()["codeformer"].fill, model)
    with pytest.raises(UserError, match="its codebook is not that of"):
        fill(codeformer, Path("codeformer.pth"))
    model.net.codebook.load_state_dict(source.codebook.state_dict())
    before = model.net.generator.last_layer.clone()
    fill(codeformer, Path("codeformer.pth"))
    for part in ("lq_encoder", "code_transformer"):
        ours, theirs = getattr(model.net, part).parameters(), getattr(source, part).parameters()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert torch.equal(model.net.generator.last_layer, before)


def test_only_lq_encoder_code_transformer_and_kalman_filter_receive_gradients() -> None:
    torch.manual_seed(0)
    model = recipe()
    batch = {"gt": torch.rand(1, 2, 3, 32, 32) * 2 - 1, "lq": torch.rand(1, 2, 3, 8, 8) * 2 - 1}
    model.net.flownet = ZeroFlow()
    ((name, terms),) = list(model.losses(batch, 0))
    assert name == "net"
    torch.stack(list(terms.values())).sum().backward()
    parts = {k.split(".")[0] for k, p in model.net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert parts == {"lq_encoder", "code_transformer", "kalman_filter"}


def test_the_ablation_without_memory_sees_every_frame_as_a_first_one() -> None:
    torch.manual_seed(0)
    full = net()
    with torch.no_grad():  # an untrained encoder's codes hardly differ
        list(full.lq_encoder.parameters())[-2].mul_(30)  # the last convolution's weight
    model = KalmanModel(full, CodeCrossEntropy(), MSE(), per_frame=True)
    batch = {"gt": torch.rand(2, 3, 3, 32, 32) * 2 - 1, "lq": torch.rand(2, 3, 3, 8, 8) * 2 - 1}
    together = model.restore(batch["lq"])
    assert torch.allclose(together[:, 2:], model.restore(batch["lq"][:, 2:]), atol=1e-5)
    ((_, terms),) = list(model.losses(batch, 0))
    swapped = {k: v.flip(1) for k, v in batch.items()}
    ((_, again),) = list(model.losses(swapped, 0))
    assert terms["cross_entropy"].item() == pytest.approx(again["cross_entropy"].item(), rel=1e-5)
    torch.stack(list(terms.values())).sum().backward()
    parts = {k.split(".")[0] for k, p in model.net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert parts == {"lq_encoder", "code_transformer"}
    assert {k.split(".")[0] for k, p in model.net.named_parameters() if p.requires_grad} == parts


def test_before_its_start_the_filter_neither_acts_nor_trains() -> None:
    torch.manual_seed(0)
    model = KalmanModel(net(), CodeCrossEntropy(), MSE(), filter_start=3)
    plain = KalmanModel(model.net, CodeCrossEntropy(), MSE(), per_frame=True)
    model.net.kalman_filter.requires_grad_(True)
    model.net.flownet = ZeroFlow()
    assert model.phases() == {"start": 0, "filter": 3}
    assert model.unused_parameters
    batch = {"gt": torch.rand(1, 2, 3, 32, 32) * 2 - 1, "lq": torch.rand(1, 2, 3, 8, 8) * 2 - 1}
    for step, acts in ((2, False), (3, True)):
        model.zero_grad()
        model.last_step = step
        ((_, terms),) = list(model.losses(batch, step))
        ((_, without),) = list(plain.losses(batch, step))
        torch.stack(list(terms.values())).sum().backward()
        assert (terms["cross_entropy"].item() != without["cross_entropy"].item()) is acts
        assert any(p.grad is not None for p in model.net.kalman_filter.parameters()) is acts
        assert ("kalman/gain" in model.stats) is acts
        assert torch.equal(model.restore(batch["lq"]), plain.restore(batch["lq"])) or acts
    with pytest.raises(UserError, match=r"model\.filter_start: with model\.per_frame the filter never acts"):
        KalmanModel(net(), CodeCrossEntropy(), MSE(), per_frame=True, filter_start=3)


def test_a_saturated_gain_is_warned_of_once_and_again_when_it_comes_back() -> None:
    watch, lines = GainWatch(), {}
    for step in range(2600):
        watch.add(torch.tensor(0.5 if 1000 <= step < 1500 else 0.99 if step < 2000 else 0.01), step)
        if step % 100 == 99 and (found := watch.warnings()):
            lines[step + 1] = found
    assert list(lines) == [500, 2000]  # it recovers at 1500; from 2000 on it stays saturated
    assert "mean gain of the last 500 steps is 0.990: the Kalman filter uses only new frames" in lines[500][0]
    assert "model.filter_start" in lines[500][0]


class ZeroFlow(torch.nn.Module):
    def forward(self, current: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(current[:, :2])
