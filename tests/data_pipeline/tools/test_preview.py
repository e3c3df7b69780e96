import warnings
from pathlib import Path

import cv2
import pytest

from keep.data.tools import preview
from keep.data.video_io import probe
from scripts.drawn_vfhq import draw_vfhq


def arguments(path: Path, overrides: list[str], *more: str) -> list[str]:
    return ["-opt", str(path), *(a for o in overrides for a in ("--set", o)), *more]


def test_a_training_is_shown_and_timed(tiny, tmp_path: Path, capsys) -> None:
    out = tmp_path / "look"
    more = ["--clips", "2", "--timed", "2", "--out", str(out)]
    assert preview.main(arguments(*tiny(2, "data.train.size=40"), *more)) == 0
    sheet = cv2.imread(str(out / "sheet.png"))
    assert sheet is not None
    assert sheet.shape[1] > 1000
    clip = probe(out / "clip.mp4")
    assert clip.frames == 2 * 2 * 3  # two clips of three frames, each twice
    printed = capsys.readouterr().out
    for word in ("2 samples of data.train", "decode", "GaussianBlur", "GaussianNoise", "VideoCodec", "clips/s"):
        assert word in printed


def test_several_datasets_one_of_them_aligned_are_shown_and_timed(tiny, clips: Path, tmp_path: Path, capsys) -> None:
    draw_vfhq(tmp_path / "faces", clips=2, frames=6, side=64)
    faces = f"{{type: VFHQ, root: {tmp_path}/faces/train, landmarks: {tmp_path}/faces/landmarks}}"
    steps = "[{type: GaussianBlur, sigma: [1, 2]}, {type: Downsample}, {type: VideoCodec}]"
    datasets = f"[{faces}, {{type: VideoClips, root: {clips}}}]"
    mixture = f"data.train={{type: Mixed, clip_length: 3, size: 48, degradation: {steps}, datasets: {datasets}}}"
    more = ["--clips", "2", "--timed", "2", "--out", str(tmp_path / "look")]
    assert preview.main(arguments(*tiny(2, mixture), *more)) == 0
    assert probe(tmp_path / "look/clip.mp4").frames == 2 * 2 * 3
    printed = capsys.readouterr().out
    for word in ("2 samples of data.train (4 clips)", "decode", "GaussianBlur", "VideoCodec", "clips/s"):
        assert word in printed


def test_complete_clips_of_a_test(clips: Path, tmp_path: Path, capsys) -> None:
    path = Path("options/test/vfhq_heavy.yml")
    path = Path(__file__).resolve().parents[3] / path
    out = ["--out", str(tmp_path), "--timed", "0"]
    overrides = [f"data.test.root={clips}", "data.test.size=40", "data.test.type=VideoClips"]
    assert preview.main(arguments(path, overrides, *out)) == 0
    assert "2 samples of data.test" in capsys.readouterr().out
    assert probe(tmp_path / "clip.mp4").frames == 2 * 2 * 12


def test_no_more_workers_than_cores(tiny, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "cores", lambda: 1)
    path, overrides = tiny(2, "data.workers=3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        more = ["--clips", "1", "--timed", "2", "--out", str(tmp_path / "look")]
        assert preview.main(arguments(path, overrides, *more)) == 0
    assert "workers: 1 (not 3: this machine has 1 core)" in capsys.readouterr().out


def test_parameters_are_described() -> None:
    step = {"type": "GaussianNoise", "sigma": 3.14159, "seed": 12345, "grey": False}
    assert preview.describe_step(step) == "GaussianNoise: sigma 3.14, grey False"


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--part", "test"], "no data.test"), (["--part", "val"], "known: train"), (["--clips", "0"], "--clips")],
)
def test_mistakes_are_reported(tiny, more: list[str], message: str, capsys) -> None:
    assert preview.main(arguments(*tiny(2), *more)) == 2
    assert message in capsys.readouterr().err
