"""Both passes: who is whose, which state goes where, and how much is held."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn as nn
from drawn_faces import BRIGHT, DARK, GREEN, RED, Colour, Discs, Recorder, crossing, draw, timed
from networks import tiny

from keep.data.mux import TimedFrame
from keep.faces.align import crop
from keep.flow.dis import DIS
from keep.inference.api import Restorer
from keep.inference.video.enhance import OVERLAP, TILE, Enhancer
from keep.inference.video.network import KeepNetwork
from keep.inference.video.pipeline import Painter, WaitingFrame, batches, cut_faces, restore_faces
from keep.inference.video.scan import AlignedTrack, scan, scan_aligned
from keep.utils.clock import Clock
from keep.utils.errors import UserError


def track(frames: range | list[int], x: float = 60, y: float = 60, number: int = 0) -> AlignedTrack:
    points = np.array([(x - 7, y - 5), (x + 7, y - 5), (x, y + 2), (x - 5, y + 9), (x + 5, y + 9)], np.float32)
    still = np.repeat(points[None], len(frames), axis=0)
    return AlignedTrack(number, 0, np.array(frames), still, still, 30)


def noise(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 120, 160, 3), np.uint8)


def restored_faces(frames, tracks, network, clock: Clock, batch: int = 4) -> Iterator[WaitingFrame]:
    return restore_faces(cut_faces(frames, batches(tracks, network, batch), clock), clock)


@pytest.fixture(scope="module")
def network() -> KeepNetwork:
    torch.manual_seed(0)
    return KeepNetwork(Restorer(tiny(temporal="causal", flow=DIS()), window=4))


def test_two_people_cross_and_a_cut_falls_between():
    """Two identities; one recurrence for each of them in each shot, and no recurrence sees both shots."""
    clip, network = crossing(), Recorder(64)
    found = scan(timed(clip), Discs(), Clock(), Colour())
    assert (found.frames, found.shots) == (80, 2)
    assert [t.shot for t in found.tracks] == [0, 0, 1, 1]
    for t in found.tracks:
        assert len(t.frames) == 40
        assert (t.frames[0], t.frames[-1]) == ((0, 39) if t.shot == 0 else (40, 79))
    list(restored_faces(timed(clip), found.tracks, network, Clock(), batch=1))
    assert len(network.clips) == 4
    people = set()
    for t, one in zip(found.tracks, network.clips, strict=True):
        assert one.shape[:2] == (40, 1)
        # The nose of whom the crop shows, in the frames in which neither hides the other.
        apart = [*range(12), *range(28, 40)]
        noses = one[apart, 0, 34:40, 30:36].reshape(len(apart), -1, 3).mean(1)
        red = noses[:, 0] > noses[:, 1]
        assert red.all() or not red.any(), "one recurrence, one person"
        corners = one[:, 0, 0, 0].astype(int)
        light = DARK if t.shot == 0 else BRIGHT
        assert np.abs(corners[apart] - light).max() < 10, "one recurrence, one shot"
        people.add((t.shot, bool(red.all())))
    assert len(people) == 4


def test_the_identity_network_tells_who_turned_back():
    """Two people walk up to each other and back: by their motion alone, who was hidden comes back as another."""
    ways = [40 + 4 * min(t, 39 - t) for t in range(40)]
    clip = np.stack([draw([(GREEN, 240 - x, 63, 18), (RED, x, 57, 18)]) for x in ways])
    assert [len(t.frames) for t in scan(timed(clip), Discs(), Clock(), Colour()).tracks] == [40, 40]
    assert len(scan(timed(clip), Discs(), Clock()).tracks) == 3


def test_gaps_are_bridged_up_to_the_limit():
    missing = {*range(10, 14), *range(25, 40)}
    clip = np.stack([draw([] if t in missing else [(RED, 60 + t, 60, 18)]) for t in range(60)])
    (found,) = scan(timed(clip), Discs(), Clock(), max_gap=5).tracks
    assert set(found.frames) == set(range(60)) - set(range(25, 40))
    assert found.found is not None
    np.testing.assert_allclose(found.found[10:14, 2, 0], np.arange(70, 74), atol=1)


def test_smoothing_takes_out_the_jitter():
    rng = np.random.default_rng(0)
    clip = np.stack([draw([(RED, 100 + rng.uniform(-2, 2), 60, 20)]) for _ in range(60)])
    (found,) = scan(timed(clip), Discs(), Clock()).tracks
    assert found.found is not None
    assert found.points is not None
    jitter = [np.abs(np.diff(p[:, 2, 0])).mean() for p in (found.found, found.points)]
    assert jitter[1] < 0.15 * jitter[0]
    (raw,) = scan(timed(clip), Discs(), Clock(), sigma=0).tracks
    assert raw.points is not None
    assert raw.found is not None
    assert np.array_equal(raw.points, raw.found)


def test_faces_too_small_and_tracks_too_short_are_left():
    clip = np.stack(
        [draw([(RED, 60, 60, 20), (GREEN, 150, 60, 8)] + ([(GREEN, 200, 60, 20)] if t < 3 else [])) for t in range(30)]
    )
    found = scan(timed(clip), Discs(), Clock(), min_face=24, min_frames=5)
    assert (len(found.tracks), found.small, found.short) == (1, 1, 1)
    assert len(scan(timed(clip[:3]), Discs(), Clock()).tracks) == 2, "unless the shot itself is that short"


def test_never_more_than_a_window_waits():
    """Tracks that begin at any time, with holes: frames come out in order, and soon."""
    clip = noise(90)
    tracks = [
        track(range(3, 80), 40, 40, 0), track(range(6, 31), 90, 50, 1), track(range(29, 90), 120, 60, 2),
        track([*range(10, 20), *range(35, 60)], 60, 80, 3), track(range(50, 51), 50, 50, 4),
    ]  # fmt: skip
    network, read = Recorder(window=8), [0]

    def source() -> Iterator[TimedFrame]:
        for frame in timed(clip):
            read[0] = frame.index
            yield frame

    given = 0
    for waiting in restored_faces(source(), tracks, network, Clock()):
        assert waiting.frame.index == given
        assert waiting.complete
        assert read[0] - waiting.frame.index < 8
        assert len(waiting.faces) == sum(given in t.frames for t in tracks)
        given += 1
    assert given == 90
    assert sum(len(c) for c in network.clips) == sum(len(t.frames) for t in tracks)


def test_a_second_pass_that_gives_fewer_frames_is_no_error():
    out = list(restored_faces(timed(noise(13)), [track(range(20))], Recorder(window=8), Clock()))
    assert len(out) == 13
    assert all(waiting.complete for waiting in out)


def test_tracks_of_the_same_frames_share_a_batch():
    tracks = [track(range(9), x, 60, i) for i, x in enumerate((40, 80, 120))] + [track(range(5), 60, 60, 3)]
    network = Recorder()
    list(restored_faces(timed(noise(9)), tracks, network, Clock(), batch=2))
    assert sorted(clip.shape[:2] for clip in network.clips) == [(5, 1), (9, 1), (9, 2)]


def test_a_batch_gives_what_each_gives_alone(network):
    tracks = [track(range(7), x, 60, i) for i, x in enumerate((50, 100))]
    clips = [
        np.stack(
            [[face.restored for face in w.faces] for w in restored_faces(timed(noise(7)), tracks, network, Clock(), n)]
        )
        for n in (1, 2)
    ]
    assert np.abs(clips[0].astype(int) - clips[1]).max() <= 1


def test_a_track_is_one_recurrence_over_all_its_windows(network):
    """What the pipeline restores is what the restorer gives for the complete clip of crops."""
    clip, one = noise(11), track(range(11))
    crops = np.stack([crop(image, one.matrix(i, 32), 32) for i, image in enumerate(clip)])
    expected = np.stack(list(Restorer(network.net, window=11).restore(crops)))
    restored = np.stack([w.faces[0].restored for w in restored_faces(timed(clip), [one], network, Clock())])
    assert np.abs(restored.astype(int) - expected).max() <= 1


def test_aligned_faces_begin_anew_at_a_cut(network):
    texture = np.random.default_rng(0).integers(0, 40, (6, 32, 32, 3), np.uint8)
    shots = [texture + np.array(colour, np.uint8) for colour in (DARK, BRIGHT)]
    clip = np.concatenate(shots)
    found = scan_aligned(timed(clip), Clock())
    assert [list(t.frames) for t in found.tracks] == [list(range(6)), list(range(6, 12))]
    painter = Painter()
    images = [painter.paint(w, Clock()) for w in restored_faces(timed(clip), found.tracks, network, Clock())]
    expected = np.concatenate([list(Restorer(network.net, window=4).restore(shot)) for shot in shots])
    assert np.abs(np.stack(images).astype(int) - expected).max() <= 1


def test_the_nearer_face_is_pasted_last():
    class White(Recorder):
        def begin(self):
            number = len(self._clips)
            self._clips.append([])
            return lambda crops: np.full_like(crops, 255 * number)

    near = track(range(1), 60, 60, 0)
    far = AlignedTrack(1, 0, np.array([0]), near.points * 0.5 + 30, near.found, 15)  # type: ignore[operator]
    for tracks, expected in (([near, far], 0), ([far, near], 255)):
        (waiting,) = restored_faces(timed(noise(1)), tracks, White(), Clock(), batch=1)
        assert Painter().paint(waiting, Clock())[62, 60].mean() == expected


def test_what_the_parser_calls_no_face_stays_the_inputs():
    class Half:
        def __call__(self, faces):
            masks = np.ones(faces.shape[:3], bool)
            masks[:, :, faces.shape[2] // 2 :] = False
            return masks

    class White(Recorder):
        def begin(self):
            return lambda crops: np.full_like(crops, 255)

    frame = np.zeros((1, 120, 160, 3), np.uint8)
    (waiting,) = restored_faces(timed(frame), [track(range(1), 80, 60)], White(64), Clock())
    image = Painter(parser=Half()).paint(waiting, Clock())
    assert image[60, 68].mean() > 240
    assert image[60, 92].mean() < 5
    assert not frame.any(), "the input is not painted over"


def test_a_larger_output(network):
    (waiting,) = restored_faces(timed(noise(1)), [track(range(1))], network, Clock())
    image = Painter(scale=2).paint(waiting, Clock())
    assert image.shape == (240, 320, 3)
    plain = Painter(scale=2).background(waiting.frame.image)
    changed = np.nonzero((image != plain).any(-1))
    assert np.mean(changed[1]) == pytest.approx(120, abs=10)


def compact(path, scale: int = 2):
    """A small super-resolution model's file."""
    pytest.importorskip("spandrel", reason="spandrel is not installed")
    torch.manual_seed(0)
    widths = [3, 8, 8, 8]
    layers = [m for a, b in pairwise(widths) for m in (nn.Conv2d(a, b, 3, 1, 1), nn.PReLU(b))]
    body = nn.Sequential(*layers, nn.Conv2d(8, 3 * scale**2, 3, 1, 1))
    torch.save({f"body.{name}": value for name, value in body.state_dict().items()}, path)
    return path


def test_the_background_model_works_in_tiles(tmp_path):
    enhancer = Enhancer(compact(tmp_path / "sr.pth"))
    assert enhancer.scale == 2
    image = np.random.default_rng(0).integers(0, 256, (40, TILE + 60, 3), np.uint8)
    full = enhancer._tile(image)
    assert full.shape == (80, 2 * TILE + 120, 3)
    assert np.abs(enhancer(image).astype(int) - full).max() <= 1, f"{OVERLAP} px are enough for this network"
    assert Painter(2, enhancer).background(image).shape == full.shape


def test_background_models_that_are_none(tmp_path):
    pytest.importorskip("spandrel", reason="spandrel is not installed")
    with pytest.raises(UserError, match="there is no file"):
        Enhancer(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no model")
    with pytest.raises(UserError, match="not a super-resolution model that spandrel can load"):
        Enhancer(tmp_path / "text.pth")
