import itertools

import numpy as np
import pytest

from keep.faces.track import Tracker, assign, interpolated
from keep.utils.errors import UserError


def test_assignment_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(200):
        rows, columns = (int(n) for n in rng.integers(1, 6, 2))
        cost = rng.normal(size=(rows, columns))
        if rng.random() < 0.3:
            cost = cost.round()  # ties
        pairs = assign(cost)
        assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == min(rows, columns) == len(pairs)
        wide = cost if rows <= columns else cost.T
        every = itertools.permutations(range(wide.shape[1]), wide.shape[0])
        best = min(sum(wide[i, j] for i, j in enumerate(p)) for p in every)
        assert sum(cost[r, c] for r, c in pairs) == pytest.approx(best)


def test_two_faces_that_cross_keep_their_tracks(face):
    tracker = Tracker()
    for t in range(60):  # the order of the detections changes: it must not matter
        faces = [face(50 + 4 * t, 100), face(290 - 4 * t, 112)]
        tracker.update(t, faces[:: 1 if t % 2 else -1])
    tracks = tracker.finish()
    assert len(tracks) == 2
    ends = sorted((track.boxes[0, 0], track.boxes[-1, 0]) for track in tracks)
    assert ends == [(30, 266), (270, 34)]
    assert all(len(track) == 60 for track in tracks)


def test_a_lost_face_goes_on_within_the_patience_and_not_after(face):
    for gap, count in ((5, 1), (12, 2)):
        tracker = Tracker(patience=10)
        for t in (*range(5), *range(5 + gap, 12 + gap)):
            tracker.update(t, [face(100, 100)])
        assert len(tracker.finish()) == count


def test_timeline_has_nan_where_the_face_was_lost(face):
    tracker = Tracker()
    for t in (3, 4, 7):
        tracker.update(t, [face(100 + t, 100)])
    frames, points, boxes = tracker.finish()[0].timeline()
    assert frames.tolist() == [3, 4, 5, 6, 7]
    assert np.isnan(points[2:4]).all()
    assert np.isnan(boxes[2:4]).all()
    assert np.isfinite(boxes[[0, 1, 4]]).all()
    assert points[4, 2, 0] == 107


def test_a_cut_ends_every_track(face):
    tracker = Tracker()
    tracker.update(0, [face(100, 100), face(200, 100)])
    tracker.cut()
    tracker.update(1, [face(100, 100)])
    assert [(track.id, track.shot, track.frames.tolist()) for track in tracker.finish()] == [
        (0, 0, [0]), (1, 0, [0]), (2, 1, [1]),
    ]  # fmt: skip


class Colour:
    """A stand-in identity network: the colour of the pixel under the nose."""

    measure = "cosine"

    def __call__(self, frames, points):
        rows = [f[int(p[2, 1]), int(p[2, 0])].astype(np.float32) for f, p in zip(frames, points, strict=True)]
        return np.stack([row / np.linalg.norm(row) for row in rows])


def painted(*places: tuple[int, int, tuple[int, int, int]]) -> np.ndarray:
    frame = np.full((240, 320, 3), 128, np.uint8)
    for x, y, colour in places:
        frame[y - 20 : y + 20, x - 20 : x + 20] = colour
    return frame


RED, BLUE = (250, 10, 10), (10, 10, 250)


def test_with_identity_people_who_turn_back_are_not_swapped(face):
    """Two people meet and go back where they came from: by place and speed alone they would have crossed."""

    def run(identity):
        tracker = Tracker(identity=identity, same=0.5)
        for t in range(40):
            x = 60 + 5 * t if t < 20 else 60 + 5 * (39 - t)
            places = [(x, 100, RED), (320 - x, 104, BLUE)]
            tracker.update(t, [face(px, py) for px, py, _ in places], painted(*places))
        return [(track.boxes[0, 0], track.boxes[-1, 0]) for track in tracker.finish()]

    assert run(Colour()) == [(40, 40), (240, 240)]


def test_with_identity_a_face_that_reappears_elsewhere_is_found_and_another_is_not(face):
    for colour, count in ((RED, 1), (BLUE, 2)):
        tracker = Tracker(identity=Colour(), same=0.5)
        for t in range(10):
            tracker.update(t, [face(60, 60)], painted((60, 60, RED)))
        for t in range(15, 25):
            tracker.update(t, [face(250, 180)], painted((250, 180, colour)))
        assert len(tracker.finish()) == count


def test_with_identity_another_face_in_the_same_place_is_a_new_track(face):
    tracker = Tracker(identity=Colour(), same=0.5)
    for t in (0, 1, 2, 6, 7):
        tracker.update(t, [face(60, 60)], painted((60, 60, RED if t < 5 else BLUE)))
    assert [track.frames.tolist() for track in tracker.finish()] == [[0, 1, 2], [6, 7]]


def test_detection_every_few_frames_is_filled_in(face):
    tracker = Tracker()
    for t in (0, 5, 10, 20):
        tracker.update(t, [face(100 + 2 * t, 100)])
    (track,) = interpolated(tracker.finish(), 5)
    assert track.frames.tolist() == [*range(11), 20]
    np.testing.assert_allclose(track.boxes[:11, 0], 80 + 2 * np.arange(11))
    assert track.points.dtype == np.float32


def test_bad_use(face):
    tracker = Tracker()
    tracker.update(3, [])
    with pytest.raises(UserError, match="in order"):
        tracker.update(3, [])
    with pytest.raises(UserError, match="images of the frames"):
        Tracker(identity=Colour()).update(0, [face(60, 60)])
