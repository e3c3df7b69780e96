"""Faces upside down or on their side: their points are not trusted, and with any_angle they are found."""

import numpy as np
import pytest

from keep.data.video_io import read_video
from keep.faces.align import TEMPLATE_512
from keep.faces.angles import PlausibleFaces, is_plausible, quarter_turns, turned_back
from keep.faces.detect import Face
from keep.faces.follow import follow
from keep.utils.clock import Clock


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    return points @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])


def test_points_of_a_face_are_plausible_at_any_angle_and_in_profile():
    for degrees in range(0, 360, 30):
        assert is_plausible(turned(TEMPLATE_512, degrees))
    profile = TEMPLATE_512.copy()
    profile[:, 0] = 256 + 0.25 * (profile[:, 0] - 256)  # both eyes, and both corners of the mouth, almost in line
    profile[2, 0] += 60  # the nose sticks out
    assert is_plausible(profile)


def test_points_of_an_upright_face_drawn_on_another_are_not():
    eyes_below = TEMPLATE_512.copy()
    eyes_below[:, 1] = -eyes_below[:, 1]  # the left eye is still left: a mirrored face
    assert not is_plausible(eyes_below)
    assert not is_plausible(np.zeros((5, 2)))


def test_turning_back():
    image = np.zeros((40, 60), np.uint8)
    image[5, 50] = 1
    for turns in range(4):
        y, x = (float(v[0]) for v in np.nonzero(np.rot90(image, turns)))
        face = Face(np.array([x, y, x, y], np.float32), np.full((5, 2), (x, y), np.float32), 0.9)
        back = turned_back(face, turns, np.rot90(image, turns).shape)
        np.testing.assert_array_equal(back.points, [[50, 5]] * 5)
        np.testing.assert_array_equal(back.box, [50, 5, 50, 5])
    for turns in range(4):
        assert quarter_turns(turned(TEMPLATE_512, 90 * turns)) == turns


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_real_face_at_any_angle(centerface, videos, turns):
    """Found where it is, followed, and right side up for the network; without the option it is left alone."""
    upright = read_video(videos / "single_face.mp4", 0, 6)
    clip = np.ascontiguousarray(np.rot90(upright, turns, (1, 2)))
    plain = PlausibleFaces(centerface)
    assert sum(len(plain(image)) for image in clip[:3]) == 0
    stream = ((i, image, False) for i, image in enumerate(clip))
    found = list(follow(stream, PlausibleFaces(centerface, any_angle=True), 8, Clock()))
    for seen, image in zip(found, upright, strict=True):
        (face,) = seen.faces
        (wanted,) = centerface(image)
        height, width = image.shape[:2]
        places = wanted.points
        for _ in range(turns):
            places = np.stack([places[:, 1], width - 1 - places[:, 0]], 1)
            height, width = width, height
        error = np.linalg.norm(face.points - places, axis=1).mean()
        assert error < 0.05 * wanted.area**0.5
        assert quarter_turns(face.points) == (4 - turns) % 4 or quarter_turns(face.points) == turns


def test_upright_faces_stay(centerface, woman):
    detector = PlausibleFaces(centerface, any_angle=True)
    assert len(detector(woman[0])) == 1
    assert detector.rejected == 0
