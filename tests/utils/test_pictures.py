import cv2
import numpy as np
import pytest

from keep.utils import pictures
from keep.utils.errors import UserError


def clip(length=4, height=32, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (length, height, width, 3), dtype=np.uint8)


def read(path):
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1]


class TestSideBySide:
    def test_small_panels_grow_to_a_readable_width_and_even_sides(self):
        frames = list(pictures.side_by_side({"input": clip(width=33, height=31), "output": clip(width=33, height=31)}))
        assert len(frames) == 4
        height, width, _ = frames[0].shape
        assert frames[0].dtype == np.uint8
        assert height % 2 == 0
        assert width % 2 == 0
        assert width >= 2 * pictures.MIN_PANEL + pictures.GAP

    def test_a_panel_is_shown_unchanged_where_nothing_is_enlarged(self):
        a, b = clip(2, 64, 256, seed=1), clip(2, 64, 256, seed=2)
        for t, frame in enumerate(pictures.side_by_side({"a": a, "b": b})):
            below_caption = frame[-64:]
            np.testing.assert_array_equal(below_caption[:, :256], a[t])
            np.testing.assert_array_equal(below_caption[:, 256 + pictures.GAP :], b[t])

    def test_a_smaller_clip_is_enlarged_by_nearest_neighbour(self):
        small, large = clip(1, 64, 64), clip(1, 256, 256)
        (frame,) = pictures.side_by_side({"input": small, "output": large})
        np.testing.assert_array_equal(frame[-256:, :256], small[0].repeat(4, axis=0).repeat(4, axis=1))

    def test_scale(self):
        (frame,) = pictures.side_by_side({"a": clip(1, 256, 256)}, scale=2)
        assert frame.shape[1] == 512

    def test_a_long_caption_stays_inside_its_panel(self):
        black = np.zeros((1, 64, 256, 3), np.uint8)
        (frame,) = pictures.side_by_side({"a caption far too long for its panel, " * 3: black, "b": black})
        bar = frame[: -64 - 1]
        background = bar[0, 0]
        text = np.abs(bar.astype(int) - background).max(axis=(0, 2)) > 60
        assert text[:256].any()
        assert not text[[0, 1, 2, 253, 254, 255]].any()

    def test_captions_are_drawn(self):
        (frame,) = pictures.side_by_side({"KEEP ×4": np.zeros((1, 64, 256, 3), np.uint8)})
        assert frame[:-64].max() > 200
        assert (frame[-64:] == 0).all()

    @pytest.mark.parametrize(
        ("panels", "message"),
        [
            ({}, "no clips"),
            ({"a": clip(2), "b": clip(3)}, "differ in length"),
            ({"a": clip(2).astype(np.float32)}, "'a'.*uint8"),
            ({"a": clip(2)[0]}, r"\(T, H, W, 3\)"),
            ({"a": clip(2)[:0]}, "'a'"),
        ],
    )
    def test_wrong_panels_are_refused_at_once(self, panels, message):
        with pytest.raises(UserError, match=message):
            pictures.side_by_side(panels)


class TestContactSheet:
    def test_rows_and_columns(self, tmp_path):
        path = tmp_path / "new" / "sheet.png"
        pictures.contact_sheet({"input": clip(9, 40, 40), "output": clip(9, 160, 160)}, path, columns=3)
        height, width, _ = read(path).shape
        assert height > 2 * 160
        assert width > 3 * 160
        assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]

    def test_frames_are_the_named_ones(self, tmp_path):
        frames = clip(5, 160, 160)
        pictures.contact_sheet({"a": frames}, tmp_path / "a.png", times=[3])
        sheet = read(tmp_path / "a.png")
        bottom, right = sheet.shape[0] - 2 * pictures.GAP, sheet.shape[1] - 2 * pictures.GAP
        np.testing.assert_array_equal(sheet[bottom - 160 : bottom, right - 160 : right], frames[3])

    def test_a_time_outside_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="0…3"):
            pictures.contact_sheet({"a": clip(4)}, tmp_path / "a.png", times=[4])

    def test_an_unknown_format_is_refused_and_leaves_nothing(self, tmp_path):
        with pytest.raises(UserError, match="nonsense"):
            pictures.contact_sheet({"a": clip(4)}, tmp_path / "a.nonsense")
        assert not list(tmp_path.iterdir())
