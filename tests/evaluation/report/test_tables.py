"""Tables of a small made-up run: means, intervals, differences, quoted rows; as text for each reader."""

import csv
import io
import math
import re
import subprocess
from shutil import which

import numpy as np
import pytest

from keep.evaluation.evaluate import ClipScore, Failure, Table
from keep.evaluation.report import notes, tables
from keep.evaluation.report.latex import latex, tex
from keep.evaluation.report.summary import column_of, split_of
from keep.evaluation.statistics import paired
from keep.metrics.base import Metric, SetMetric


class Fake(Metric):
    def __init__(self, name: str, higher: bool, factor: float = 1, decimals: int = 4):
        self.name, self.higher_is_better, self.factor, self.decimals = name, higher, factor, decimals

    def measure(self, output, target):
        raise AssertionError("these tests give the values, nothing is measured")


class Pool(SetMetric):
    name, higher_is_better, decimals = "FVD", False, 1

    def samples(self, clip):
        raise AssertionError("these tests give the values, nothing is measured")

    def value(self, outputs, targets):
        return float(np.mean(outputs))


METRICS = [Fake("PSNR", True, decimals=2), Fake("σ_IDS (Net_1)", False, factor=100), Pool()]
PSNR = {"bicubic": [20.0, 22.0, 24.0], "KEEP": [21.0, 23.1, 24.9]}
SIGMA = {"bicubic": [0.02, math.nan, 0.04], "KEEP": [0.05, 0.01, 0.03]}


@pytest.fixture
def content():
    scores = [
        ClipScore(f"clip{i}", name, i, 2, {}, {"PSNR": PSNR[name][i], "σ_IDS (Net_1)": SIGMA[name][i]},
                  {"σ_IDS (Net_1)": 2 if math.isnan(SIGMA[name][i]) else 0}, {"FVD": (np.full(3, 7.0), np.ones(3))})
        for i in range(3) for name in PSNR
    ]  # fmt: skip
    failures = [(f"clip{i}", Failure("KEEP", "IDS", "no face")) for i in range(3)]
    clips = ["clip0", "clip1", "clip2"]
    split = split_of("heavy", Table(scores, failures), clips, list(PSNR), METRICS, "heavy")
    return {
        "name": "run",
        "restorers": {"bicubic": "bicubic ×4", "KEEP": "KEEP (ema) net.pth"},
        "files": {"net.pth": "ab12"},
        "versions": {"torch": "2"},
        "code": "c0de",
        "device": "cpu",
        "columns": [column_of(m) for m in METRICS],
        "splits": [split],
        "problems": split["problems"],
    }


def test_the_cells_hold_mean_interval_clips_and_missing_frames(content):
    cells = content["splits"][0]["rows"][0]["cells"]
    assert cells["PSNR"]["mean"] == 22.0
    assert 20 <= cells["PSNR"]["low"] < 22 < cells["PSNR"]["high"] <= 24
    assert cells["σ_IDS (Net_1)"] == pytest.approx({"mean": 0.03, "low": 0.02, "high": 0.04, "clips": 2, "missing": 2})
    assert cells["FVD"] == {"mean": 7.0, "low": None, "high": None, "clips": 3, "missing": 0}


def test_differences_are_clip_by_clip(content):
    (pair,) = [p for p in content["splits"][0]["pairs"] if p["metric"] == "PSNR"]
    assert (pair["a"], pair["b"], pair["clips"]) == ("KEEP", "bicubic", 3)
    assert pair["mean"] == pytest.approx(1.0)
    assert 0.9 - 1e-9 <= pair["low"] <= pair["high"] <= 1.1 + 1e-9  # though the clips lie 2 dB apart
    first, *_ = notes.differences(content["splits"][0], content)
    assert first.startswith("KEEP − bicubic, PSNR: +1.00 [+0.90, +1.10]")
    assert first.endswith("3 clips: not significant")  # three clips are too few, however clear it looks
    content["splits"][0]["pairs"][0]["p"] = 0.01
    assert notes.differences(content["splits"][0], content)[0].endswith("better")
    content["splits"][0]["pairs"][0].update(low=-0.1)
    assert notes.differences(content["splits"][0], content)[0].endswith("not significant")
    second = notes.differences(content["splits"][0], content)[1]
    assert "2 clips: not significant" in second


def test_with_fewer_than_six_clips_the_tables_say_that_nothing_can_be_significant(content):
    (split,) = content["splits"]
    (line,) = notes.too_few(split)
    assert line.startswith("3 clips: no difference can be significant here.")
    assert "smallest p by sign changes is 0.25, above 0.05; six clips are needed" in line
    assert line in tables.markdown(content)
    assert line in tables.console(content)
    for clips, lines in ((1, 0), (5, 1), (6, 0)):  # the sign test's 2 / 2ⁿ: .0625 for five clips, .03125 for six
        assert len(notes.too_few({**split, "clips": ["clip"] * clips})) == lines
        if clips > 1:
            ahead = paired(np.arange(1.0, clips + 1), np.zeros(clips))
            assert ahead.p == notes.smallest_p(clips)
    assert notes.too_few({**split, "rows": split["rows"][:1]}) == []


def test_a_failure_is_one_line_with_the_clips_it_befell(content):
    assert content["problems"] == ["heavy: clip0 and 2 more clips: KEEP: IDS: no face"]


def three() -> dict:
    """A split of three restorers, of which the last is 1 dB ahead of the second in every clip."""
    rng = np.random.default_rng(0)
    clips = [f"clip{i}" for i in range(8)]
    base = rng.random(8)
    scores = [
        ClipScore(clip, name, i, 2, {}, {"PSNR": float(base[i] + k)}, {"PSNR": 3 if name == "b" else 0})
        for i, clip in enumerate(clips) for k, name in enumerate("abc")
    ]  # fmt: skip
    split = split_of("own", Table(scores), clips, list("abc"), METRICS[:1], None, [(256, 256)])
    return {"columns": [column_of(METRICS[0])], "splits": [split]}


def test_each_is_compared_with_the_first_and_the_last_with_each():
    content = three()
    lines = notes.differences(content["splits"][0], content)
    assert [line.partition(",")[0] for line in lines] == ["b − a", "c − a", "c − b"]
    assert lines[2].startswith("c − b, PSNR: +1.00 [+1.00, +1.00]")
    assert lines[2].endswith("better")
    text = latex(content)
    assert r"c $-$ b & $+1.00$$^*$" in text


def test_missing_values_are_one_line_per_restorer():
    assert notes.missing_values(three()["splits"][0]) == [
        "b: without a value, excluded from the means: 24 frames (PSNR)"
    ]


def test_console(content):
    text = tables.console(content)
    assert "heavy: 3 clips" in text
    assert re.search(r"KEEP +23\.00\* +3\.0000\* +7\.0\*", text)
    assert "σ_IDS (Net_1) (×10⁻²) ↓" in text
    assert "bicubic: without a value, excluded from the means: 2 frames, 1 of 3 clips (σ_IDS (Net_1))" in text
    assert "\n\n\n" not in text


def test_markdown_quotes_the_paper_apart_from_our_rows(content):
    text = tables.markdown(content)
    ours, quoted = text.split("### Quoted from the paper: heavy")
    assert "| KEEP | 23.00* |" in ours
    assert "27.2165" not in ours
    assert "| KEEP (quoted) | 27.2165 | 0.8124 |" in quoted
    assert "names no network" in quoted
    assert "`net.pth`: sha256 ab12" in text
    assert "keep's code: sha256 c0de" in text
    assert f"- PSNR: {METRICS[0].describe()}\n" in text
    for table in re.split(r"\n\n", text):
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_latex_has_two_blocks_with_headers_of_their_own(content):
    text = latex(content)
    assert r"KEEP & \textbf{23.00}" in text
    assert r"bicubic & \underline{22.00}" in text
    assert r"KEEP & \textbf{27.2165} & \textbf{0.8124}" in text
    assert r"BasicVSR++ & \underline{26.2686}" in text
    assert r"$\sigma_{\mathrm{IDS}}$ (Net\_1) ($\times 10^{-2}$) $\downarrow$" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and not line.startswith(r"\multicolumn")]
    assert {line.count(" & ") for line in rows} == {7}
    assert not re.search(r"[×σ↑↓⁻–]", "\n".join(line for line in text.splitlines() if not line.startswith("%")))


@pytest.mark.skipif(which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(content, tmp_path):
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}\small " + latex(content)
    (tmp_path / "t.tex").write_text(document + r"\end{document}")
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b & 50% #1 $", r"a\_b \& 50\% \#1 \$"),
        ("x\\y{z}", r"x\textbackslash y\{z\}"),
        ("σ_AKD", r"$\sigma_{\mathrm{AKD}}$"),
        ("~^", r"\textasciitilde \textasciicircum "),
    ],
)
def test_tex_escapes(text, escaped):
    assert tex(text) == escaped


def test_csv_keeps_values_in_full_and_leaves_gaps_empty(content):
    content["columns"] = content["columns"][:1]
    value = 1 / 3 + 20
    record = {
        "split": "heavy", "clip": 'a,"b"', "frames": 2,
        "restorers": {
            "KEEP": {"per_frame": {"PSNR": [value, None]}, "scores": {"PSNR": value}, "missing": {"PSNR": 1}}
        },
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(tables.frames_csv(content, [record]))))
    assert float(rows[0]["PSNR"]) == value
    assert rows[1] == {"split": "heavy", "restorer": "KEEP", "clip": 'a,"b"', "frame": "1", "PSNR": ""}
    (row,) = csv.DictReader(io.StringIO(tables.clips_csv(content, [record])))
    assert float(row["PSNR"]) == value
    assert row["missing frames: PSNR"] == "1"
