import sys

import cv2
import numpy as np
import pytest

from keep.utils import visual
from keep.utils.errors import UserError


def clip(length=4, height=32, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (length, height, width, 3), dtype=np.uint8)


def read(path):
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1]


class TestSideBySide:
    def test_small_panels_grow_to_a_readable_width_and_even_sides(self):
        frames = list(visual.side_by_side({"input": clip(width=33, height=31), "output": clip(width=33, height=31)}))
        assert len(frames) == 4
        height, width, _ = frames[0].shape
        assert frames[0].dtype == np.uint8
        assert height % 2 == 0
        assert width % 2 == 0
        assert width >= 2 * visual.MIN_PANEL + visual.GAP

    def test_a_panel_is_shown_unchanged_where_nothing_is_enlarged(self):
        a, b = clip(2, 64, 256, seed=1), clip(2, 64, 256, seed=2)
        for t, frame in enumerate(visual.side_by_side({"a": a, "b": b})):
            below_caption = frame[-64:]
            np.testing.assert_array_equal(below_caption[:, :256], a[t])
            np.testing.assert_array_equal(below_caption[:, 256 + visual.GAP :], b[t])

    def test_a_smaller_clip_is_enlarged_by_nearest_neighbour(self):
        small, large = clip(1, 64, 64), clip(1, 256, 256)
        (frame,) = visual.side_by_side({"input": small, "output": large})
        np.testing.assert_array_equal(frame[-256:, :256], small[0].repeat(4, axis=0).repeat(4, axis=1))

    def test_scale(self):
        (frame,) = visual.side_by_side({"a": clip(1, 256, 256)}, scale=2)
        assert frame.shape[1] == 512

    def test_a_long_caption_stays_inside_its_panel(self):
        black = np.zeros((1, 64, 256, 3), np.uint8)
        (frame,) = visual.side_by_side({"a caption far too long for its panel, " * 3: black, "b": black})
        bar = frame[: -64 - 1]
        background = bar[0, 0]
        text = np.abs(bar.astype(int) - background).max(axis=(0, 2)) > 60
        assert text[:256].any()
        assert not text[[0, 1, 2, 253, 254, 255]].any()

    def test_captions_are_drawn(self):
        (frame,) = visual.side_by_side({"KEEP ×4": np.zeros((1, 64, 256, 3), np.uint8)})
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
            visual.side_by_side(panels)


class TestContactSheet:
    def test_rows_and_columns(self, tmp_path):
        path = tmp_path / "new" / "sheet.png"
        visual.contact_sheet({"input": clip(9, 40, 40), "output": clip(9, 160, 160)}, path, columns=3)
        height, width, _ = read(path).shape
        assert height > 2 * 160
        assert width > 3 * 160
        assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]

    def test_frames_are_the_named_ones(self, tmp_path):
        frames = clip(5, 160, 160)
        visual.contact_sheet({"a": frames}, tmp_path / "a.png", times=[3])
        sheet = read(tmp_path / "a.png")
        bottom, right = sheet.shape[0] - 2 * visual.GAP, sheet.shape[1] - 2 * visual.GAP
        np.testing.assert_array_equal(sheet[bottom - 160 : bottom, right - 160 : right], frames[3])

    def test_a_time_outside_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="0…3"):
            visual.contact_sheet({"a": clip(4)}, tmp_path / "a.png", times=[4])

    def test_an_unknown_format_is_refused_and_leaves_nothing(self, tmp_path):
        with pytest.raises(UserError, match="nonsense"):
            visual.contact_sheet({"a": clip(4)}, tmp_path / "a.nonsense")
        assert not list(tmp_path.iterdir())


class TestFigures:
    @pytest.mark.parametrize("length", [1, 5])
    def test_gain_figure(self, tmp_path, length):
        gains = np.random.default_rng(0).random((length, 4, 4))
        gains[0] = np.nan
        visual.gain_figure(gains, clip(length), tmp_path / "gain.png", columns=3)
        assert read(tmp_path / "gain.png").std() > 5

    def test_gain_figure_needs_a_map_for_every_frame(self, tmp_path):
        with pytest.raises(UserError, match="T = 4"):
            visual.gain_figure(np.zeros((3, 2, 2)), clip(4), tmp_path / "gain.png")

    def test_loss_curves(self, tmp_path):
        steps = list(range(100))
        series = {
            "stage I": {"l1": (steps, np.exp(-np.arange(100) / 30)), "gan": (steps, [float("nan"), *([0.5] * 99)])},
            "stage II": {"gan": (steps, np.sin(np.arange(100)))},
            "stage III": {},
        }
        visual.loss_curves(series, tmp_path / "loss.png")
        assert read(tmp_path / "loss.png").std() > 5

    def test_no_curves_are_refused(self, tmp_path):
        with pytest.raises(UserError, match="at least one stage"):
            visual.loss_curves({}, tmp_path / "loss.png")

    def test_the_suffix_sets_the_format(self, tmp_path):
        visual.loss_curves({"a": {"l1": ([0, 1], [1, 2])}}, tmp_path / "loss.svg")
        assert "<svg" in (tmp_path / "loss.svg").read_text()
        with pytest.raises(UserError, match="nonsense"):
            visual.loss_curves({"a": {"l1": ([0, 1], [1, 2])}}, tmp_path / "loss.nonsense")
        assert [p.name for p in tmp_path.iterdir()] == ["loss.svg"]

    def test_nothing_global_is_touched(self, tmp_path):
        import matplotlib as mpl

        before = dict(mpl.rcParams)
        pyplot = "matplotlib.pyplot" in sys.modules
        visual.loss_curves({"a": {"l1": ([0, 1], [1, 2])}}, tmp_path / "loss.png")
        visual.gain_figure(np.zeros((2, 2, 2)), clip(2), tmp_path / "gain.png")
        assert dict(mpl.rcParams) == before
        assert ("matplotlib.pyplot" in sys.modules) == pyplot

    def test_moving_average_keeps_a_constant(self):
        np.testing.assert_allclose(visual._moving_average(np.full(200, 3.0)), 3.0)


class TestTables:
    rows = (
        {"method": "bicubic", "PSNR": 25.0, "LPIPS (alex)": 0.4, "frames": 8},
        {"method": "KEEP", "PSNR": 27.5, "LPIPS (alex)": 0.17001, "frames": 8},
        {"method": "a|b", "PSNR": float("nan"), "LPIPS (alex)": 0.17002},
    )
    columns = {"method": None, "PSNR": True, "LPIPS (alex)": False, "frames": None}

    def test_markdown(self):
        assert visual.markdown_table(self.rows, self.columns).splitlines() == [
            "| method | PSNR ↑ | LPIPS (alex) ↓ | frames |",
            "| :-- | --: | --: | --: |",
            "| bicubic | 25.0000 | 0.4000 | 8 |",
            "| KEEP | 27.5000* | 0.1700* | 8 |",
            "| a\\|b | – | 0.1700* | – |",
        ]

    def test_console_columns_are_aligned(self):
        lines = visual.console_table(self.rows, self.columns, digits=2).splitlines()
        assert len(lines) == 5
        assert lines[3].split() == ["KEEP", "27.50*", "0.17*", "8"]
        assert lines[2].index("25.00") == lines[3].index("27.50")
        assert lines[2].index("0.40") == lines[3].index("0.17")

    def test_infinity_is_a_value(self):
        table = visual.markdown_table([{"PSNR": float("inf")}, {"PSNR": 30.0}], {"PSNR": True})
        assert table.splitlines()[2:] == ["| inf* |", "| 30.0000 |"]

    def test_one_row_has_no_best(self):
        assert "*" not in visual.markdown_table(self.rows[:1], self.columns)

    def test_plain_column_names_rank_nothing(self):
        table = visual.markdown_table(self.rows, ["method", "PSNR"])
        assert "*" not in table
        assert "↑" not in table
