"""Stage I's autoencoder."""

from typing import Any

import pytest
import torch
from networks import build
from precision import autocast

from keep.archs.sizes import Sizes
from keep.archs.vqgan import VQGAN, Codebook, from_patches, to_patches
from keep.utils.errors import UserError

TINY: dict[str, Any] = {
    "image_size": 32,
    "channels": 16,
    "ch_mult": (1, 2, 4),
    "attn_resolutions": (8,),
    "latent_dim": 16,
}


@pytest.fixture
def model(device) -> VQGAN:
    torch.manual_seed(0)
    return build("VQGAN", **TINY, codebook_size=32).to(device)


def test_shapes(model, device, dtype):
    with autocast(device, dtype):
        out = model(torch.rand(2, 3, 32, 32, device=device))
    assert out.reconstruction.shape == (2, 3, 32, 32)
    assert out.z.shape == out.z_q.shape == (2, 16, 8, 8)
    assert out.codes.shape == (2, 64)


def test_straight_through(model, device):
    out = model(torch.rand(1, 3, 32, 32, device=device))
    out.z.retain_grad()
    out.reconstruction.mean().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert model.codebook.embedding.weight.grad is None
    torch.testing.assert_close(model.decode(out.z_q), out.reconstruction, atol=1e-5, rtol=0)


def test_codebook_terms_reach_codebook_or_encoder_alone(model, device):
    out = model(torch.rand(1, 3, 32, 32, device=device))
    (out.z.detach() - out.z_q).square().mean().backward()
    assert model.codebook.embedding.weight.grad is not None
    assert model.encoder.blocks[0].weight.grad is None


def test_codes_are_the_nearest(device):
    torch.manual_seed(0)
    book = Codebook(50, 8).to(device)
    z = torch.randn(2, 8, 3, 5).to(device) / 50
    brute = torch.cdist(z.flatten(2).transpose(1, 2), book.embedding.weight.expand(2, -1, -1)).argmin(-1)
    assert torch.equal(book.nearest(z), brute)
    codes = torch.randint(50, (2, 15), device=device)
    assert torch.equal(book.nearest(book.lookup(codes, 3, 5)), codes)


def test_codebook_starts_uniform_within_one_over_its_size():
    assert Codebook(64, 8).embedding.weight.abs().max() <= 1 / 64


def test_last_layer_is_the_last_convolution(model):
    assert model.last_layer is model.generator.blocks[-1].weight
    assert model.last_layer.shape == (3, 16, 3, 3)
    assert "generator.last_layer.weight" not in model.state_dict()


def test_lq_encoder_features(device, dtype):
    encoder = build("LQEncoder", **TINY, feature_scales=(8, 32)).to(device)
    with autocast(device, dtype):
        z, features = encoder(torch.rand(2, 3, 32, 32, device=device))
    assert z.shape == (2, 16, 8, 8)
    assert {s: tuple(f.shape) for s, f in features.items()} == {32: (2, 16, 32, 32), 8: (2, 64, 8, 8)}


def test_block_order_of_the_released_configuration():
    with torch.device("meta"):
        model = VQGAN(Sizes())
    assert {s: i for i, s in model.encoder.feature_at.items()} == {512: 2, 256: 5, 128: 8, 64: 11, 32: 14, 16: 18}
    assert {s: i for i, s in model.generator.fuse_at.items()} == {16: 6, 32: 9, 64: 12, 128: 15, 256: 18, 512: 21}


def test_patch_one_is_the_network_without_patches(model, device):
    torch.manual_seed(0)
    same = build("VQGAN", **TINY, codebook_size=32, patch=1).to(device)
    assert [(k, v.shape) for k, v in same.state_dict().items()] == [(k, v.shape) for k, v in model.state_dict().items()]
    x = torch.rand(1, 3, 32, 32, device=device)
    z = x
    for block in model.encoder.blocks:
        z = block(z)
    h = z
    for block in model.generator.blocks:
        h = block(h)
    assert torch.equal(same.encode(x), z)
    assert torch.equal(same.decode(z), h)


@pytest.mark.parametrize("patch", [2, 4])
def test_patches_are_pixels_in_channels(patch, device, dtype):
    sizes = {**TINY, "image_size": 32 * patch, "patch": patch}
    torch.manual_seed(0)
    model = build("VQGAN", **sizes, codebook_size=32).to(device)
    with autocast(device, dtype):
        out = model(torch.rand(2, 3, 32 * patch, 32 * patch, device=device))
    assert out.reconstruction.shape == (2, 3, 32 * patch, 32 * patch)
    assert out.z.shape == (2, 16, 8, 8)
    assert model.encoder.blocks[0].weight.shape == (16, 3 * patch**2, 3, 3)
    assert model.last_layer.shape == (3 * patch**2, 16, 3, 3)
    out.reconstruction.mean().backward()
    assert all(p.grad is not None for p in [*model.encoder.parameters(), *model.generator.parameters()])


def test_one_position_sees_the_pixels_of_its_patch():
    seen = []
    encoder = build("Encoder", image_size=8, channels=4, ch_mult=(1,), attn_resolutions=(), patch=2)
    encoder.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.rand(1, 3, 8, 8)
    encoder(x)
    assert torch.equal(seen[0].unflatten(1, (3, 2, 2))[..., 1, 2], x[..., 2:4, 4:6])


@pytest.mark.parametrize("patch", [2, 3])
def test_no_pattern_repeats_with_the_patches(patch):
    drawn = torch.rand(3 * patch**2, generator=torch.Generator().manual_seed(0)).view(1, -1, 1, 1).expand(-1, -1, 4, 4)
    image = from_patches(drawn, patch)
    assert image.shape == (1, 3, 4 * patch, 4 * patch)
    inside = image[..., patch:-patch, patch:-patch]
    mean = drawn[0, :, 0, 0].view(3, -1).mean(1).view(1, 3, 1, 1).expand_as(inside)
    torch.testing.assert_close(inside, mean)


def test_pixels_are_drawn_where_they_were_seen():
    x = torch.arange(64.0).view(1, 1, 8, 8).expand(-1, 3, -1, -1)
    again = from_patches(to_patches(x, 2), 2)
    expected = (x[..., 1:, 1:] + x[..., :-1, 1:] + x[..., 1:, :-1] + x[..., :-1, :-1]) / 4
    assert torch.equal(again[..., 1:, 1:], expected)


@torch.no_grad()
def test_pixels_of_a_patch_start_alike():
    last = build("Generator", **{**TINY, "image_size": 64, "patch": 2}).blocks[-1]
    for parameter in last.parameters():
        of_patches = parameter.unflatten(0, (3, 4))
        assert torch.equal(of_patches, of_patches[:, :1].expand_as(of_patches))
        assert len(of_patches[:, 0].unique()) >= 3


def test_features_of_patches_are_named_by_their_own_size():
    encoder = build("LQEncoder", **{**TINY, "image_size": 64}, patch=2, feature_scales=(8, 32))
    z, features = encoder(torch.rand(2, 3, 64, 64))
    assert z.shape == (2, 16, 8, 8)
    assert {s: tuple(f.shape) for s, f in features.items()} == {32: (2, 16, 32, 32), 8: (2, 64, 8, 8)}


def test_sizes_that_patches_do_not_fit_are_reported_in_one_line():
    with pytest.raises(UserError, match="patch 2: the size must be a multiple of 8"):
        build("VQGAN", **{**TINY, "image_size": 36}, patch=2)
    with pytest.raises(UserError, match="works at"):
        build("LQEncoder", **TINY, patch=2, feature_scales=(32,))
