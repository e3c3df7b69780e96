import numpy as np
import pytest
import torch

from keep.config.registry import LOSSES
from keep.faces.align import TEMPLATE_512, crop, similarity
from keep.faces.embedding import Embedding
from keep.faces.identity import ARCFACE_112X96, Dlib, ONNXIdentity
from keep.losses.identity import FaceIdentity
from keep.utils.errors import UserError


class Network:
    """Stands for an identity network: its embedding is the mean colour of the crop."""

    size, template, files, name = (112, 96), ARCFACE_112X96, (), "mean colour"

    def differentiable(self):
        return Embedding(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))


def smooth(frames: int, side: int) -> torch.Tensor:
    noise = torch.rand(frames, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(noise, size=side, mode="bicubic").clamp(-1, 1)


@pytest.mark.parametrize("side", [128, 256, 512])
def test_the_crop_is_the_one_of_the_metric(side):
    frames = smooth(1, side)
    ours = FaceIdentity(Network()).crops(frames)[0].permute(1, 2, 0).numpy()
    image = frames[0].permute(1, 2, 0).numpy()
    matrix = similarity(TEMPLATE_512 * side / 512, template=ARCFACE_112X96)
    theirs = crop(image, matrix, (112, 96), border="replicate")
    assert np.abs(ours - theirs).max() < 0.06  # OpenCV rounds positions to 1/32 of a pixel, and its cubic has a = -0.75
    assert np.abs(ours - theirs).mean() < 0.005


def test_the_value_is_one_minus_the_cosine():
    red, green = torch.full((1, 2, 3, 64, 64), -1.0), torch.full((1, 2, 3, 64, 64), -1.0)
    red[:, :, 0], green[:, :, 1] = 1.0, 1.0
    loss = FaceIdentity(Network(), weight=0.5)
    assert loss.weight == 0.5
    assert loss(red, red).item() == pytest.approx(0, abs=1e-6)
    assert loss(red, green).item() == pytest.approx(1 + 1 / 3)  # (1, -1, -1) and (-1, 1, -1)


def test_gradients_reach_the_output_and_not_the_network():
    output = smooth(2, 64)[None].requires_grad_()
    loss = FaceIdentity(Network()).train()
    loss(output, smooth(2, 64).flip(-1)[None]).backward()
    assert output.grad is not None
    assert output.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in loss.parameters())
    assert not loss.net.training


def test_a_network_outside_pytorch_is_refused():
    network = Dlib.__new__(Dlib)
    network.name = "dlib-resnet"
    with pytest.raises(UserError, match="does not run in PyTorch"):
        FaceIdentity(network)


@pytest.mark.parametrize("flip", ["none", "sum", "concat"])
def test_an_onnx_network_gives_the_same_vectors_with_gradients(shared, flip):
    pytest.importorskip("onnx2torch")
    network = ONNXIdentity(shared("weights/mobilefacenet_arcface_112x96.onnx"), flip=flip)
    crops = (smooth(2, 112)[..., 8:104] * 127.5 + 127.5).round()
    found = network.differentiable()(crops / 127.5 - 1)
    expected = network.embed(crops.to(torch.uint8).permute(0, 2, 3, 1).numpy())
    assert np.abs(found.numpy() - expected).max() < 1e-4


def test_options_build_it_and_a_person_is_closest_to_themselves(shared):
    pytest.importorskip("onnx2torch")
    network = {"type": "ONNXIdentity", "weights": shared("weights/mobilefacenet_arcface_112x96.onnx")}
    loss = LOSSES.spec({"type": "FaceIdentity", "network": network, "weight": 0.3}).build()
    a, b = smooth(1, 256), smooth(1, 256).flip(-2)
    assert loss(a, a + 0.02) < loss(a, b)
