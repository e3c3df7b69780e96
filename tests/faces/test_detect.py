import numpy as np
import pytest

from keep.config.registry import DETECTORS
from keep.faces import detect
from keep.faces.detect import CenterFace, Detector, Face, RetinaFace, YuNet, default_detector, importable, largest_faces
from keep.utils.errors import UserError

BOX = np.array([322, 45, 540, 345])  # of the first frame of `woman`, by eye
POINTS = np.array([[371, 168], [458, 168], [417, 238], [386, 294], [458, 294]])  # of the first frame, by eye, roughly


@pytest.fixture
def retinaface(shared) -> RetinaFace:
    if not importable("facexlib"):
        pytest.skip("facexlib is not installed")
    weights = shared("weights/retinaface_mobilenet0.25_Final.pth")
    return RetinaFace(weights, network="mobile0.25-1MB", longest_side=320)


@pytest.fixture
def yunet(shared) -> YuNet:
    return YuNet(shared("weights/yunet_n_320_320.onnx"))


@pytest.mark.parametrize("name", ["retinaface", "yunet", "centerface"])
def test_a_real_face(name, request, woman):
    detector = request.getfixturevalue(name)
    (face,) = detector(woman[0])
    assert np.abs(face.box - BOX).max() < 35
    assert np.abs(face.points - POINTS).mean() < 20
    assert 0.5 < face.score <= 1
    assert detector(np.zeros_like(woman[0])) == []
    assert detector.name.startswith(type(detector).__name__)
    assert detector.to("cpu") is detector


@pytest.mark.parametrize("name", ["retinaface", "yunet", "centerface"])
def test_places_are_those_of_the_frame_whatever_its_size(name, request, woman):
    """Two faces, one small: twice the frame gives the same faces at twice the place, the larger one first."""
    import cv2

    detector = request.getfixturevalue(name)
    half = cv2.resize(woman[0], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    frame = np.zeros((360, 640, 3), np.uint8)
    frame[:180, :320], frame[:, 300:] = half, woman[0][:, 300:]
    large, small = detector(frame)
    assert large.area > 3 * small.area
    assert small.points[2, 0] == pytest.approx(POINTS[2, 0] / 2, abs=10)
    twice = detector(cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR))
    for a, b in zip(twice, (large, small), strict=True):
        np.testing.assert_allclose(a.points / 2, b.points, atol=4)


def test_colours_are_taken_as_rgb(retinaface, woman):
    """A face is found in either order; its score is higher in the order of the training."""
    right, swapped = (retinaface(f) for f in (woman[0], woman[0][..., ::-1].copy()))
    assert right[0].score >= (swapped[0].score if swapped else 0)


def test_odd_frames(centerface, woman):
    assert len(centerface(woman[0][:353, 1:640])) == 1
    with pytest.raises(UserError, match="uint8"):
        centerface(woman[0].astype(np.float32))
    with pytest.raises(UserError, match="uint8"):
        centerface(woman[0][..., 0])


class Scripted(Detector):
    """Finds the same boxes in a frame as its first pixel says."""

    name = "scripted"

    def __init__(self, script):
        self.script = script

    def rows(self, frame):
        boxes = self.script[frame[0, 0, 0]]
        return np.array([[*b, *[b[0], b[1]] * 5, 0.9] for b in boxes], np.float32).reshape(-1, 15)


def test_the_largest_face_is_followed():
    far, near = (0, 0, 10, 10), (50, 50, 70, 70)
    grown = (0, 0, 30, 30)
    frames = np.zeros((5, 80, 80, 3), np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None]
    boxes, points = largest_faces(Scripted([[], [far, near], [grown, near], [], [near]]), frames)
    np.testing.assert_array_equal(boxes[[1, 2, 4]], [near] * 3)
    assert np.isnan(boxes[[0, 3]]).all()
    assert np.isnan(points[[0, 3]]).all()
    assert boxes.shape == (5, 4)
    assert points.shape == (5, 5, 2)
    assert largest_faces(Scripted([]), [])[1].shape == (0, 5, 2)


def test_area_of_an_empty_box():
    assert Face(np.array([5, 5, 3, 9.0]), np.zeros((5, 2)), 0.9).area == 0


def test_weights_that_are_not_there(tmp_path):
    for cls in (YuNet, CenterFace):
        with pytest.raises(UserError, match="there is no file"):
            cls(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    for cls in (YuNet, CenterFace):
        with pytest.raises(UserError, match=r"bad\.onnx"):
            cls(tmp_path / "bad.onnx")


def test_a_network_without_a_known_hash_is_not_downloaded():
    if not importable("facexlib"):
        pytest.skip("facexlib is not installed")
    with pytest.raises(UserError, match="set 'weights'"):
        RetinaFace(network="mobile0.25-1MB")


def test_weights_of_another_network(shared):
    if not importable("facexlib"):
        pytest.skip("facexlib is not installed")
    with pytest.raises(UserError, match="another network"):
        RetinaFace(shared("weights/retinaface_mobilenet0.25_Final.pth"), network="resnet50")


@pytest.fixture
def nothing_here(monkeypatch, tmp_path):
    """A machine without weights, detector packages or network."""
    from keep.utils.downloads import Unavailable

    def no_network(url, *_):
        raise Unavailable(f"{url} cannot be downloaded")

    monkeypatch.setattr(detect, "importable", lambda package: False)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("keep.faces.files.fetch", no_network)
    return tmp_path


def test_default_detector_takes_an_available_one(nothing_here, monkeypatch):
    for name in ("RetinaFace", "YuNet", "CenterFace"):
        monkeypatch.setattr(detect, name, lambda *a, name=name: (name, *a))
    monkeypatch.setattr(detect, "weights_file", lambda file_name, cache: file_name)
    monkeypatch.setattr(detect, "importable", lambda package: True)
    assert default_detector(nothing_here) == ("CenterFace",)
    (nothing_here / detect.YUNET).touch()
    assert default_detector(nothing_here) == ("YuNet", detect.YUNET)
    (nothing_here / detect.RESNET).touch()
    assert default_detector(nothing_here) == ("RetinaFace", detect.RESNET)
    monkeypatch.setattr(detect, "importable", lambda package: package != "facexlib")
    assert default_detector(nothing_here) == ("YuNet", detect.YUNET)


def test_no_detector_at_all(nothing_here):
    with pytest.raises(UserError, match="no face detector is available"):
        default_detector(nothing_here)


def test_registered():
    assert {"RetinaFace", "YuNet", "CenterFace"} <= set(DETECTORS.names())
    assert DETECTORS.spec({"type": "YuNet", "size": 640}).options["threshold"] == 0.7
