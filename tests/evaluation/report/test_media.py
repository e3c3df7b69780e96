import numpy as np
import pytest

from keep.data.video_io import probe, read_video
from keep.evaluation.report import media


def moving(length=6, size=32):
    """A bright square that moves by two pixels a frame, in rows 16 to 20, on grey."""
    clip = np.full((length, size, size, 3), 90, np.uint8)
    for t in range(length):
        clip[t, 16:21, 4 + 2 * t : 10 + 2 * t] = (250, 240, 30)
    return clip


def test_videos_slices_and_gain_maps(tmp_path):
    truth = moving()
    clips = {"input": truth[:, ::4, ::4], "KEEP": truth, "truth": truth}
    gains = np.linspace(0, 1, 6 * 4).reshape(6, 2, 2)
    gains[0] = np.nan
    found = media.save_clip(tmp_path, tmp_path / "media/a", clips, {"KEEP": gains}, fps=10, crf=1)
    assert list(found.videos) == ["input", "KEEP", "truth"]
    for name, path in found.videos.items():
        info = probe(tmp_path / path)
        assert (info.frames, info.height, info.fps) == (6, clips[name].shape[1], 10)
    assert 16 <= found.row <= 20

    import cv2

    image = cv2.imread(str(tmp_path / found.slices["KEEP"]))
    assert image is not None
    np.testing.assert_array_equal(image[..., ::-1], truth[:, found.row])
    assert (tmp_path / found.slices["input"]).exists()
    shown = read_video(tmp_path / found.gains["KEEP"]).astype(int)
    assert np.abs(shown[0] - 128).max() < 8  # no prediction, no gain
    assert shown[5, -4, -4, 0] > 200 > 100 > shown[5, -4, -4, 2]  # 1 is yellow
    assert shown[1, 4, 4, 2] > shown[1, 4, 4, 0]  # near 0 is blue
    assert {k for k in found.more} == {"KEEP gain", "side by side", "contact sheet"}
    assert all((tmp_path / p).stat().st_size > 500 for p in found.more.values())


def test_the_worst_frame_is_the_lowest_or_the_highest_as_the_metric_says(tmp_path):
    truth = moving()
    clips = {"input": truth[:, ::4, ::4], "r": truth // 2, "truth": truth}
    values = np.array([30, np.nan, 20, 25, np.inf, 31.0])
    found = media.save_worst(tmp_path, tmp_path / "a", "r", clips, values, higher_is_better=True)
    assert found is not None
    assert (found["frame"], found["value"]) == (2, 20.0)
    found = media.save_worst(tmp_path, tmp_path / "a", "r", clips, values[[0, 1, 2, 3, 5]], higher_is_better=False)
    assert found is not None
    assert found["frame"] == 4
    import cv2

    image = cv2.imread(str(tmp_path / found["file"]))
    assert image is not None
    assert image.shape == (32, 4 * 32, 3)
    assert media.save_worst(tmp_path, tmp_path / "a", "r", clips, np.full(6, np.nan), True) is None
    assert media.save_worst(tmp_path, tmp_path / "a", "r", clips, np.full(6, np.inf), True) is None


@pytest.mark.parametrize(("error", "level"), [(0, 0), (32, 128), (64, 255), (200, 255)])
def test_error_maps_go_from_black_to_yellow_at_64_levels(error, level):
    truth = np.full((4, 4, 3), 20, np.uint8)
    image = media.error_map(truth + np.uint8(error), truth)
    np.testing.assert_array_equal(image[0, 0], media.colours("inferno")[level])


def test_the_same_clip_gives_the_same_bytes(tmp_path):
    truth = moving()
    clips = {"input": truth[:, ::4, ::4], "truth": truth}
    for name in "ab":
        media.save_clip(tmp_path / name, tmp_path / name / "x", clips, {}, fps=25, crf=16)
    for path in (tmp_path / "a/x").iterdir():
        assert path.read_bytes() == (tmp_path / "b/x" / path.name).read_bytes()
