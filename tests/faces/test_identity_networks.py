import numpy as np
import pytest
import torch

from keep.config.registry import IDENTITIES
from keep.faces import identity
from keep.faces.detect import importable, largest_faces
from keep.faces.identity import ARCFACE_112, ArcFace, Dlib, Identity, ONNXIdentity
from keep.utils.errors import UserError


@pytest.fixture
def onnx(shared) -> ONNXIdentity:
    return ONNXIdentity(shared("weights/mobilefacenet_arcface_112x96.onnx"))


@pytest.fixture
def dlib() -> Dlib:
    if not (importable("dlib") and importable("face_recognition_models")):
        pytest.skip("dlib is not installed")
    return Dlib()


@pytest.mark.parametrize("name", ["onnx", "dlib"])
def test_one_person_is_nearer_than_another(name, request, centerface, woman, man):
    network = request.getfixturevalue(name)
    her, him = (network(f[[0, 5]], largest_faces(centerface, f[[0, 5]])[1]) for f in (woman, man))
    assert her.shape == (2, network.width)
    assert her.dtype == np.float32
    if network.measure == "cosine":
        np.testing.assert_allclose(np.linalg.norm(her, axis=1), 1, atol=1e-5)
        assert min(her[0] @ her[1], him[0] @ him[1]) > 0.6
        assert (her @ him.T).max() < 0.3
    else:
        assert max(np.linalg.norm(her[0] - her[1]), np.linalg.norm(him[0] - him[1])) < 0.5
        assert np.linalg.norm(her[:, None] - him, axis=-1).min() > 0.6


class Mean(Identity):
    """The crop's mean colour."""

    name, measure, size, template, width = "mean", "cosine", (112, 112), ARCFACE_112, 3

    def embed(self, crops):
        return crops.mean((1, 2)).astype(np.float32)


def test_frames_without_a_face_are_nan():
    points = np.array(ARCFACE_112)[None].repeat(3, 0)
    points[1, 2] = np.nan
    frames = np.zeros((3, 112, 112, 3), np.uint8)
    frames[..., 1] = 90
    out = Mean()(frames, points)
    assert np.isnan(out[1]).all()
    np.testing.assert_allclose(out[[0, 2]], [[0, 1, 0]] * 2, atol=1e-6)
    with pytest.raises(UserError, match="3 frames, but points for 2"):
        Mean()(frames, points[:2])


def test_the_crop_is_aligned_to_the_template():
    """A frame moved, turned and scaled with its points gives the same vector."""
    import cv2

    rng = np.random.default_rng(0)
    frame = cv2.GaussianBlur(rng.integers(0, 256, (112, 112, 3)).astype(np.float32), (0, 0), 6)
    frame = cv2.normalize(frame, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # pyright: ignore
    matrix = np.array([[1.9, -0.8, 70], [0.8, 1.9, 10]])
    big = cv2.warpAffine(frame, matrix, (400, 400), flags=cv2.INTER_CUBIC)
    points = np.array(ARCFACE_112)
    vectors = Mean()(frame[None], points[None]), Mean()(big[None], (points @ matrix[:, :2].T + matrix[:, 2])[None])
    np.testing.assert_allclose(*vectors, atol=5e-3)


def test_onnx_options(shared, centerface, man):
    path = shared("weights/mobilefacenet_arcface_112x96.onnx")
    points = largest_faces(centerface, man[:1])[1]
    both, plain = (ONNXIdentity(path, flip=flip) for flip in ("concat", "none"))
    assert (both.width, plain.width, plain.name) == (256, 128, "mobilefacenet_arcface_112x96")
    assert np.dot(both(man[:1], points)[0, :128], plain(man[:1], points)[0]) > 0.5
    with pytest.raises(UserError, match="does not take 3×200×32"):
        ONNXIdentity(path, size=(200, 32))


def test_arcface_loads_its_published_layout_and_sees_bgr(tmp_path, monkeypatch):
    """facexlib's network, made small: the real one has 44 M parameters."""
    if not importable("facexlib"):
        pytest.skip("facexlib is not installed")

    class Backbone(torch.nn.Module):
        def __init__(self, **_):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x.mean((2, 3)) * self.weight

    monkeypatch.setattr("facexlib.recognition.arcface_arch.Backbone", Backbone)
    torch.save({"weight": torch.tensor([2.0])}, tmp_path / "arcface.pth")
    network = ArcFace(tmp_path / "arcface.pth").to("cpu")
    red = np.zeros((1, 112, 112, 3), np.uint8)
    red[..., 0] = 255
    np.testing.assert_allclose(network.embed(red), [[-2, -2, 2]], atol=1e-6)
    np.testing.assert_allclose(ArcFace(tmp_path / "arcface.pth", "RGB").embed(red), [[2, -2, -2]], atol=1e-6)
    torch.save({"other": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="another network"):
        ArcFace(tmp_path / "bad.pth")


@pytest.mark.slow
def test_arcface_whole(tmp_path):
    if not importable("facexlib"):
        pytest.skip("facexlib is not installed")
    from facexlib.recognition.arcface_arch import Backbone

    torch.save(Backbone(50, 0.6, "ir_se").state_dict(), tmp_path / "arcface.pth")
    frames = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    out = ArcFace(tmp_path / "arcface.pth")(frames, np.array(ARCFACE_112)[None].repeat(2, 0))
    assert out.shape == (2, 512)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-5)


def test_without_dlib(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dlib", None)
    with pytest.raises(UserError, match=r"keep-vfsr\[dlib\]"):
        Dlib()
    monkeypatch.setattr(identity, "package_folder", lambda *_: __import__("pathlib").Path("/nowhere"))
    with pytest.raises(UserError, match="is missing"):
        identity.dlib_model("x.dat")


def test_registered():
    assert {"ArcFace", "ONNXIdentity", "Dlib"} <= set(IDENTITIES.names())
    options = IDENTITIES.spec({"type": "ONNXIdentity", "weights": "a.onnx", "size": [112, 112]}).options
    assert options["size"] == (112, 112)
    assert len(options["template"]) == 5
