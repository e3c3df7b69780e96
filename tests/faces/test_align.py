import cv2
import numpy as np
import pytest

from keep.faces.align import TEMPLATE_512, crop, invert, scale_of, similarity, transform
from keep.utils.errors import UserError


def moved(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """The template's points after a known similarity."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return TEMPLATE_512 @ np.array([[c, -s], [s, c]]).T + shift


@pytest.mark.parametrize("method", ["least_squares", "lmeds"])
def test_similarity_undoes_a_known_motion(method):
    points = moved(0.3, 0.5, (40, -7))
    matrix = similarity(points, 256, method=method)
    np.testing.assert_allclose(transform(matrix, points), TEMPLATE_512 / 2, atol=1e-6)
    assert scale_of(matrix) == pytest.approx(0.5 / 0.5)
    np.testing.assert_allclose(transform(invert(matrix), TEMPLATE_512 / 2), points, atol=1e-6)


def test_least_squares_is_the_best_similarity():
    rng = np.random.default_rng(0)
    points = moved(-0.2, 0.7, (5, 9)) + rng.normal(0, 4, (5, 2))
    best = similarity(points)
    error = ((transform(best, points) - TEMPLATE_512) ** 2).sum()
    for _ in range(50):  # every similarity near it is worse
        da, db, dx, dy = rng.normal(0, 1e-2, 4)
        near = best + np.array([[da, -db, dx * 50], [db, da, dy * 50]])
        assert ((transform(near, points) - TEMPLATE_512) ** 2).sum() > error


def test_lmeds_leaves_an_outlier_out():
    points = moved(0.1, 0.6, (3, 4))
    clean = similarity(points)
    points[3] += (40, 25)
    np.testing.assert_allclose(similarity(points, method="lmeds"), clean, atol=1e-3)
    assert np.abs(similarity(points) - clean).max() > 0.1


@pytest.mark.parametrize("points", [np.full((5, 2), 3.0), np.full((5, 2), np.nan), np.zeros((4, 2))])
def test_points_that_cannot_be_aligned(points):
    with pytest.raises(UserError, match="cannot align a face"):
        similarity(points)


def test_crop_puts_the_points_where_the_template_has_them():
    points = moved(0.2, 0.4, (60, 30))
    frame = np.zeros((320, 320, 3), np.uint8)
    for x, y in points:
        cv2.circle(frame, (round(x), round(y)), 3, (255, 255, 255), -1)
    out = crop(frame, similarity(points), 512)
    for x, y in TEMPLATE_512:
        assert out[round(y), round(x)].min() > 200


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.31])
def test_crop_keeps_places_when_it_shrinks(scale):
    y, x = np.mgrid[:200, :200].astype(np.float32)
    frame = np.stack([x, y], -1)  # every pixel holds its own place
    matrix = np.array([[scale, 0, -10 * scale], [0, scale, -20 * scale]])
    out = crop(frame, matrix, (16, 20))
    v, u = np.mgrid[:16, :20]
    np.testing.assert_allclose(out, transform(invert(matrix), np.stack([u, v], -1)), atol=0.06)


def test_a_large_face_does_not_alias():
    stripes = np.tile(np.array([0, 255], np.uint8), (256, 128))[..., None].repeat(3, 2)
    out = crop(stripes, np.array([[0.25, 0, 0], [0, 0.25, 0]]), 60)
    assert abs(out[5:-5, 5:-5].astype(float) - 127.5).max() < 12


def test_beyond_the_frame():
    frame = np.full((20, 20, 3), 50, np.uint8)
    matrix = np.array([[1.0, 0, 30], [0, 1.0, 30]])
    assert tuple(crop(frame, matrix, 20)[0, 0]) == (132, 133, 135)
    assert crop(frame, matrix, 20, border="replicate")[0, 0, 0] == 50
