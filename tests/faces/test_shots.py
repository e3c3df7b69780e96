import numpy as np

from keep.data.video_io import iter_video, write_video
from keep.faces.shots import ShotDetector, shot_cuts


def scene(colour: tuple[int, int, int], frames: int, speed: int, seed: int) -> np.ndarray:
    """A disc of one colour that moves before a mottled background of another."""
    rng = np.random.default_rng(seed)
    background = rng.integers(0, 60, (1, 90, 160, 3)) + np.array(colour) // 2
    clip = background.repeat(frames, 0).astype(np.uint8)
    y, x = np.mgrid[:90, :160]
    for t in range(frames):
        clip[t][(y - 45) ** 2 + (x - 20 - speed * t) ** 2 < 900] = colour
    return clip


A, B = scene((220, 160, 120), 20, 5, 0), scene((60, 120, 230), 15, 8, 1)


def test_the_first_frame_of_each_shot(tmp_path):
    clip = np.concatenate([A, B, A[:9]])
    assert shot_cuts(clip) == [20, 35]
    write_video(tmp_path / "clip.mp4", clip, 25, crf=30)
    assert shot_cuts(iter_video(tmp_path / "clip.mp4")) == [20, 35]


def test_quick_motion_and_a_fade_are_no_cuts():
    assert shot_cuts(scene((220, 160, 120), 8, 18, 0)) == []
    share = np.linspace(0, 1, 24)[:, None, None, None]
    fade = ((1 - share) * A[0] + share * B[0]).astype(np.uint8)
    assert shot_cuts(fade) == []


def test_a_cut_in_the_second_frame_and_no_frames():
    assert shot_cuts(np.concatenate([A[:1], B])) == [1]
    assert shot_cuts([]) == []


def test_frames_may_differ_in_size():
    detector = ShotDetector()
    assert [detector.update(f) for f in (A[0], A[1][::2, ::2], B[0])] == [False, False, True]


def test_real_frames(woman, man):
    assert shot_cuts(np.concatenate([woman, man])) == [len(woman)]
