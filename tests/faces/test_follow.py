"""Faces followed between searches of the whole frame: as many, at the same places, for a fraction of the pixels."""

from typing import Any

import cv2
import numpy as np
import pytest

from keep.faces.detect import Detector
from keep.faces.follow import follow
from keep.utils.clock import Clock

LIGHT = 200
OFFSETS = np.array([(-0.4, -0.3), (0.4, -0.3), (0, 0.1), (-0.3, 0.5), (0.3, 0.5)])


class Discs(Detector):
    """Finds bright discs. In crops it is off by ``bias`` of the radius, as real detectors are."""

    name, crop_side = "discs", 64

    def __init__(self, bias: float = 0.0) -> None:
        self.bias = bias
        self.searched: list[tuple[int, int]] = []

    def rows(self, frame: np.ndarray) -> np.ndarray:
        self.searched.append(frame.shape[:2])
        count, _, stats, centres = cv2.connectedComponentsWithStats((frame[..., 0] > 100).astype(np.uint8))
        found = []
        for (x, y, w, h, area), centre in zip(stats[1:count], centres[1:count], strict=True):
            if area > 30:
                shift = self.bias * w if frame.shape[:2] == (64, 64) else 0
                found.append([x, y, x + w, y + h, *(centre + shift + OFFSETS * w / 2).ravel(), 0.9])
        return np.array(found, np.float32).reshape(-1, 15)


def clip(people: Any, frames: int = 20) -> list[np.ndarray]:
    """``people(t)`` gives the discs (x, y, radius) of frame t, 240×320."""
    images = []
    for t in range(frames):
        image = np.zeros((240, 320, 3), np.uint8)
        for x, y, radius in people(t):
            cv2.circle(image, (round(x), round(y)), radius, (LIGHT,) * 3, -1)
        images.append(image)
    return images


def found(images: list[np.ndarray], detector: Any, every: int = 8, cuts: tuple[int, ...] = ()) -> list[list[Any]]:
    stream = ((i, image, i in cuts) for i, image in enumerate(images))
    seen = list(follow(stream, detector, every, Clock()))
    assert [s.item for s in seen] == list(range(len(images)))
    assert [s.item for s in seen if s.cut] == list(cuts)
    return [s.faces for s in seen]


def two(t: int) -> list[tuple[float, float, int]]:
    return [(60 + 3 * t, 80, 25), (250 - 2 * t, 170, 14)]


def same(a: list[list[Any]], b: list[list[Any]], atol: float = 1.0) -> None:
    for one, other in zip(a, b, strict=True):
        assert len(one) == len(other)
        for face, wanted in zip(one, other, strict=True):
            np.testing.assert_allclose(face.points, wanted.points, atol=atol)
            np.testing.assert_allclose(face.box, wanted.box, atol=2)


def test_faces_are_those_of_a_search_of_every_frame():
    images, fast, slow = clip(two), Discs(), Discs()
    same(found(images, fast), found(images, slow, every=1))
    assert slow.searched == [(240, 320)] * 20
    assert fast.searched.count((240, 320)) == 4, "frames 0, 8, 16, and the last"
    assert sum(h * w for h, w in fast.searched) < 0.4 * sum(h * w for h, w in slow.searched)


def test_what_crops_are_off_is_taken_off():
    images = clip(two)
    biased = Discs(bias=0.06)
    same(found(images, biased), found(images, Discs(), every=1), atol=0.7)


@pytest.mark.parametrize("first", [3, 8, 15])
def test_a_face_that_appears_is_followed_back(first):
    images = clip(lambda t: two(t)[:1] + two(t)[1:] * (t >= first))
    same(found(images, Discs()), found(images, Discs(), every=1))


def test_a_face_that_disappears_is_lost_at_once():
    images = clip(lambda t: two(t)[:1] + two(t)[1:] * (t < 11 or t > 13))
    same(found(images, Discs()), found(images, Discs(), every=1))


def test_a_fast_face_has_the_frame_searched():
    images = clip(lambda t: [(60, 60, 20) if t % 2 else (250, 180, 20)])
    same(found(images, Discs()), found(images, Discs(), every=1))


def test_nothing_is_followed_over_a_cut():
    images = clip(lambda t: [(60, 60, 20)] if t < 11 else [(250, 180, 20), (60, 60, 12)])
    detector = Discs()
    same(found(images, detector, cuts=(11,)), found(images, Discs(), every=1, cuts=(11,)))
    assert detector.searched.count((240, 320)) == 5, "0, 8, 10, 11, 19"


def test_many_faces_are_searched_in_full():
    images = clip(lambda t: [(40 + 60 * (i % 5), 40 + 60 * (i // 5), 20) for i in range(15)])
    detector = Discs()
    same(found(images, detector), found(images, Discs(), every=1))
    assert detector.searched.count((240, 320)) == 20


def test_faces_at_the_border():
    images = clip(lambda t: [(2 * t - 10, 120, 20), (310, 5, 18)])
    same(found(images, Discs()), found(images, Discs(), every=1))


def test_any_function_is_a_detector():
    images, plain = clip(two, 5), Discs()
    same(found(images, lambda image: plain(image)), found(images, Discs(), every=1))
    assert found([], Discs()) == []


def test_real_faces(centerface, videos):
    """A real detector: no face is missed, points differ by about 1 % of the face's size."""
    from keep.data.video_io import read_video

    images = list(read_video(videos / "single_face.mp4", 0, 18))
    for followed, searched in zip(found(images, centerface), found(images, centerface, every=1), strict=True):
        assert len(followed) == len(searched) == 1
        error = np.linalg.norm(followed[0].points - searched[0].points, axis=1).mean()
        assert error < 0.03 * searched[0].area ** 0.5
