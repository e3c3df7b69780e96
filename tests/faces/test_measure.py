import cv2
import numpy as np
import pytest

from keep.faces.align import TEMPLATE_512
from keep.faces.detect import Face
from keep.faces.measure import COLOURLESS, SHARP, SOFT, Measures, chroma, cut, measured_side, sharpness


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Detail of all sizes, as in photographs."""
    rng = np.random.default_rng(0)
    grey = np.full((128, 128), 128, np.float32)
    for i, n in enumerate((4, 8, 16, 32, 64, 128)):
        noise = rng.normal(0, 1, (n, n)).astype(np.float32)
        grey += cv2.resize(noise, (128, 128), interpolation=cv2.INTER_CUBIC) * 40 / 1.6**i
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2)


def test_blur_and_enlarging_lower_the_sharpness(picture):
    values = [sharpness(picture)] + [sharpness(cv2.GaussianBlur(picture, (0, 0), s)) for s in (1, 2, 4)]
    assert values == sorted(values, reverse=True)
    small = cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA)
    assert sharpness(cv2.resize(small, (128, 128), interpolation=cv2.INTER_CUBIC)) < 0.8 * values[0]
    assert sharpness(np.full_like(picture, 90)) == 0


def test_strength_falls_with_sharpness():
    for value, strength in ((SOFT - 0.01, 1), ((SOFT + SHARP) / 2, 0.5), (SHARP + 0.01, 0)):
        assert Measures(sharpness=[value] * 3).strength == pytest.approx(strength)
    assert Measures().strength == 1
    assert Measures().usual_chroma > COLOURLESS, "unknown: not black and white"


@pytest.mark.parametrize(("shown", "size", "side"), [(400, 256, 256), (200, 256, 200), (60, 256, 128), (400, 128, 128)])
def test_sharpness_is_measured_as_the_output_shows_it(shown, size, side):
    """Neither in more pixels than the frame or the network has, nor in fewer than the limits were measured with."""
    assert measured_side(TEMPLATE_512 * shown / 512 + 20, size) == pytest.approx(side, abs=1)


def test_a_large_blurred_face_is_not_sharp(picture):
    """In a crop smaller than the network's it would look sharp."""
    blurred = cv2.resize(picture, (480, 480), interpolation=cv2.INTER_CUBIC)
    face = Face(np.array([0, 0, 480, 480], np.float32), (TEMPLATE_512 * 480 / 512).astype(np.float32), 0.9)
    strengths = []
    for size in (128, 256):
        measures = Measures()
        measures.add(blurred, face, size)
        strengths.append(measures.strength)
    assert strengths[0] < 0.5
    assert strengths[1] == 1


def test_chroma(picture):
    assert chroma(picture) == 0
    tinted = picture.copy()
    tinted[..., 0] = np.minimum(255, tinted[..., 0].astype(int) + 30)
    assert chroma(tinted) > 6


def test_boxes_beyond_the_frame(picture):
    part = cut(picture, np.array([-20, 100, 60, 300.0]))
    assert part is not None
    assert part.shape == (28, 60, 3)
    assert cut(picture, np.array([-20, 10, -5, 30.0])) is None
