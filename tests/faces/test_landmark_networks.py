import numpy as np
import pytest
import torch

from keep.config.registry import LANDMARKS
from keep.faces.detect import importable, largest_faces
from keep.faces.landmarks import FAN, PFLD, Dlib68, Landmarks, peaks
from keep.utils.errors import UserError


@pytest.fixture
def pfld(shared) -> PFLD:
    return PFLD(shared("weights/pfld68_300w_ext.onnx"))


@pytest.fixture
def dlib68() -> Dlib68:
    if not (importable("dlib") and importable("face_recognition_models")):
        pytest.skip("dlib is not installed")
    return Dlib68()


@pytest.mark.parametrize("name", ["pfld", "dlib68"])
def test_landmarks_agree_with_the_detectors_points(name, request, centerface, man):
    network = request.getfixturevalue(name)
    boxes, points = largest_faces(centerface, man[:2])
    out = network(man[:2], boxes)
    assert out.shape == (2, 68, 2)
    assert out.dtype == np.float32
    five = np.stack([out[:, 36:42].mean(1), out[:, 42:48].mean(1), out[:, 30], out[:, 48], out[:, 54]], 1)
    assert np.abs(five - points).mean() < 0.06 * (boxes[0, 2] - boxes[0, 0])


class Corners(Landmarks):
    """The corners and the centre of the crop, and the brightest pixel."""

    name, count, side, factor = "corners", 4, 64, 1.5

    def points(self, image):
        y, x = np.unravel_index(image.sum(2).argmax(), image.shape[:2])
        return np.array([(-0.5, -0.5), (63.5, 63.5), (31.5, 31.5), (x, y)])


def test_the_crop_is_the_enlarged_box_and_points_come_back_to_the_frame():
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[119:122, 179:182] = 255
    boxes = np.array([[140, 60, 200, 140], [np.nan] * 4])
    out = Corners()(frame[None].repeat(2, 0), boxes)
    np.testing.assert_allclose(out[0, :3], [(110, 40), (230, 160), (170, 100)], atol=1e-4)
    np.testing.assert_allclose(out[0, 3], (180, 120), atol=2)
    assert np.isnan(out[1]).all()
    with pytest.raises(UserError, match="2 frames, but boxes for 1"):
        Corners()(frame[None].repeat(2, 0), boxes[:1])
    with pytest.raises(UserError, match="is empty"):
        Corners()(frame[None], np.array([[5, 5, 5, 5.0]]))


def test_peaks_lean_towards_the_higher_neighbour():
    heat = np.zeros((3, 8, 8))
    heat[0, 3, 5], heat[0, 3, 6], heat[0, 2, 5] = 2, 1, 1
    heat[1, 0, 0] = 1
    heat[2, 7, 7], heat[2, 7, 6] = 2, 1
    np.testing.assert_allclose(peaks(heat)[:2], [(5.75, 3.25), (0.25, 0.25)])
    assert (np.abs(peaks(heat)[2] - 7.5) <= 0.25).all()


def test_fan_decodes_into_the_frame(tmp_path, monkeypatch):
    """facexlib's network replaced by one that marks the brightest pixel of its input."""
    if not importable("facexlib"):
        pytest.skip("facexlib is not installed")

    class Brightest(torch.nn.Module):
        def __init__(self, **_):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            heat = torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 4)
            return [heat.repeat(1, 99, 1, 1)], None

    monkeypatch.setattr("facexlib.alignment.awing_arch.FAN", Brightest)
    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "fan.pth")
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[118:123, 178:183] = 255
    network = FAN(tmp_path / "fan.pth").to("cpu")
    out = network(frame[None], np.array([[140, 60, 200, 140]]))
    assert out.shape == (1, 98, 2)
    np.testing.assert_allclose(out[0], [(180, 120)] * 98, atol=2)


@pytest.mark.slow
def test_fan_whole(tmp_path):
    if not importable("facexlib"):
        pytest.skip("facexlib is not installed")
    from facexlib.alignment.awing_arch import FAN as Whole  # noqa: N811

    torch.save({"state_dict": Whole(num_modules=4, num_landmarks=98, device="cpu").state_dict()}, tmp_path / "fan.pth")
    out = FAN(tmp_path / "fan.pth")(np.zeros((1, 64, 64, 3), np.uint8), np.array([[10, 10, 50, 50]]))
    assert np.isfinite(out).all()


def test_files_that_are_other_networks(shared, tmp_path):
    with pytest.raises(UserError, match=r"points|112"):
        PFLD(shared("weights/mobilefacenet_arcface_112x96.onnx"))
    with pytest.raises(UserError, match="there is no file"):
        PFLD(tmp_path / "none.onnx")


def test_registered():
    assert {"FAN", "PFLD", "Dlib68"} <= set(LANDMARKS.names())
