import logging
from pathlib import Path

import lpips
import pytest
import torch
import torchvision

from keep.losses.perceptual import LPIPS, LPIPSDistance, VGGPerceptual
from keep.utils import downloads
from keep.utils.downloads import Unavailable
from keep.utils.errors import UserError

SQUEEZE = Path(__file__).resolve().parents[2] / "../shared/data/weights/squeezenet1_1.pth"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    def urlopen(url, timeout):
        raise OSError("no network")

    monkeypatch.setattr(downloads.urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("KEEP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def squeeze():
    if not SQUEEZE.is_file():
        pytest.skip("squeezenet1_1.pth is not here")
    return LPIPS(net="squeeze", weights=SQUEEZE)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """A random VGG16 (features alone) as torchvision would save it."""
    with torch.device("meta"):
        features = torchvision.models.vgg16(weights=None).features
    generator = torch.Generator().manual_seed(0)
    state = {k: torch.randn(v.shape, generator=generator) * 0.05 for k, v in features.state_dict().items()}
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save({f"features.{k}": v.half() for k, v in state.items()}, path)
    return path


def frames(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_equals_the_definition(squeeze):
    """LPIPS written out: torchvision's layers, the package's heads, unit features, squared difference."""
    a = frames(2, 3, 64, 64)
    b = (a + 0.2 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    backbone = torchvision.models.squeezenet1_1(weights=None)
    backbone.load_state_dict(torch.load(SQUEEZE, weights_only=True))
    heads = torch.load(Path(lpips.__file__).parent / "weights/v0.1/squeeze.pth", map_location="cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, expected, level = (torch.cat([a, b]) - shift.view(3, 1, 1)) / scale.view(3, 1, 1), torch.zeros(2), 0
    for i, layer in enumerate(backbone.features):
        x = layer(x)
        if i in (1, 4, 7, 9, 10, 11, 12):
            difference = torch.sub(*torch.nn.functional.normalize(x, dim=1).chunk(2)).square()
            expected += (difference * heads[f"lin{level}.model.1.weight"]).sum(1).mean((1, 2))
            level += 1
    assert expected.min() > 0.01
    torch.testing.assert_close(squeeze.net(a, b), expected)
    torch.testing.assert_close(squeeze(a, b), expected.mean())


def test_backbone_is_the_files(squeeze):
    state = torch.load(SQUEEZE, weights_only=True)
    torch.testing.assert_close(squeeze.net.net.net.slice1[0].weight, state["features.0.weight"].float())
    torch.testing.assert_close(
        squeeze.net.net.net.slice7[0].expand3x3.bias, state["features.12.expand3x3.bias"].float()
    )


def test_clips_are_flattened_to_frames(squeeze):
    a, b = frames(4, 3, 48, 48), frames(4, 3, 48, 48).flip(0)
    torch.testing.assert_close(squeeze(a.unflatten(0, (2, 2)), b.unflatten(0, (2, 2))), squeeze(a, b))
    assert squeeze(a, a) == 0


def test_building_draws_no_random_numbers(vgg_file):
    state = torch.get_rng_state()
    LPIPS(weights=vgg_file)
    VGGPerceptual(weights=vgg_file)
    assert torch.equal(state, torch.get_rng_state())


def test_frozen_even_in_training(squeeze):
    torch.nn.Sequential(squeeze).train()
    assert not any(m.training for m in squeeze.net.modules())
    assert not any(p.requires_grad for p in squeeze.parameters())


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_finite_gradients_on_flat_frames(squeeze, value):
    flat = torch.full((1, 3, 64, 64), value, requires_grad=True)
    (grad,) = torch.autograd.grad(squeeze(flat, frames(1, 3, 64, 64)), flat)
    assert grad.isfinite().all()
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("build", [LPIPS, VGGPerceptual])
def test_a_missing_backbone_stops(build, tmp_path):
    with pytest.raises(Unavailable) as error:
        build()
    message = str(error.value)
    assert "\n" not in message
    assert all(s in message for s in ("vgg16-397923af.pth", str(tmp_path / "home"), "set option weights to"))


@pytest.mark.parametrize("build", [LPIPS, VGGPerceptual])
def test_a_missing_backbone_is_skipped_with_a_warning_if_configured(build, caplog):
    with caplog.at_level(logging.WARNING):
        loss = build(if_missing="skip")
    assert "OFF" in caplog.text
    assert "vgg16-397923af.pth" in caplog.text
    assert not loss.active
    output = frames(1, 2, 3, 16, 16).requires_grad_()
    value = loss(output, frames(1, 2, 3, 16, 16))
    assert value.item() == 0
    value.backward()


def test_a_wrong_path_is_never_skipped(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        LPIPS(weights=tmp_path / "typo.pth", if_missing="skip")


def test_another_networks_file(vgg_file):
    with pytest.raises(UserError, match="another network"):
        LPIPSDistance("squeeze", vgg_file)


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("build", [LPIPS, VGGPerceptual])
def test_recomputed_features_give_the_same_gradients_and_are_not_kept(build, amp, vgg_file, monkeypatch):
    output, target = frames(2, 2, 3, 64, 64).requires_grad_(), frames(2, 2, 3, 64, 64).flip(0)
    kept: list[int] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[-1] += x.numel()
        return x

    def value_and_gradient(loss) -> tuple[torch.Tensor, torch.Tensor]:
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), torch.autocast("cpu", enabled=amp):
            value = loss(output, target)
        return value.detach(), torch.autograd.grad(value, output)[0]

    recomputing = build(weights=vgg_file, checkpoint=True)
    recomputed, plain = value_and_gradient(recomputing), value_and_gradient(build(weights=vgg_file))
    monkeypatch.setattr("keep.losses.perceptual.checkpoint", lambda function, *args, use_reentrant: function(*args))
    frame_by_frame = value_and_gradient(recomputing)
    assert all(torch.equal(a, b) for a, b in zip(frame_by_frame, recomputed, strict=True))
    assert kept[0] < 0.01 * kept[1]
    torch.testing.assert_close(recomputed[0], plain[0], rtol=1e-5, atol=0)
    # A convolution may round otherwise for another batch size; beside a ReLU's kink that is much for random weights.
    assert (recomputed[1] - plain[1]).norm() < 0.01 * plain[1].norm()


def test_vgg_perceptual(vgg_file, device):
    loss = VGGPerceptual(layers=(0.0, 0.0, 0.0, 0.0, 2.0), weights=vgg_file).to(device)
    assert loss.active
    a, b = frames(2, 3, 32, 32).to(device), frames(2, 3, 32, 32).flip(0).to(device)
    maps = loss.net(a)  # type: ignore[misc]
    assert [m.shape[1:] for m in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]
    torch.testing.assert_close(loss(a, b), 2 * (maps[-1] - loss.net(b)[-1]).abs().mean())  # type: ignore[misc]
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], device=device)
    normal = ((a + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(maps[0], loss.net.features[:4](normal))  # type: ignore[union-attr]
