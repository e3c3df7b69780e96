"""The page, in a real browser: it loads from file:// without a word on the console, sorts, seeks and draws."""

import json
import re
import subprocess
from pathlib import Path
from shutil import which

import numpy as np
import pytest

from keep.evaluation.evaluate import ClipScore, Table
from keep.evaluation.report import html, media
from keep.evaluation.report.summary import column_of, split_of
from keep.metrics.base import Metric
from keep.utils.io import write_file

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
NAMES = ["bicubic", "KEEP", 'odd </script> "name"']


class Fake(Metric):
    def __init__(self, name: str, higher: bool):
        self.name, self.higher_is_better, self.decimals = name, higher, 2

    def measure(self, output, target):
        raise AssertionError("these tests give the values, nothing is measured")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page of two splits of three clips; the first clip has videos, gains and a 30 % in its name."""
    root = tmp_path_factory.mktemp("page")
    metrics = [Fake("PSNR", True), Fake("AKD (net)", False)]
    rng = np.random.default_rng(0)
    splits, records = [], []
    for split in ("mild", "own"):
        scores = []
        for i, clip in enumerate(["a 30%/x", "b", "c"]):
            restorers = {}
            for k, name in enumerate(NAMES):
                curves = {m.name: (20 + k + rng.random(8) * (2 + j)).tolist() for j, m in enumerate(metrics)}
                curves["AKD (net)"][3] = None  # no face there
                values = {m: float(np.nanmean(np.array(v, float))) for m, v in curves.items()}
                restorers[name] = {"scores": values, "missing": {"AKD (net)": 1}, "per_frame": curves}
                scores.append(ClipScore(clip, name, i, 8, {}, values, {"AKD (net)": 1}))
            restorers["KEEP"]["gain"] = [None, *rng.random(7).tolist()]
            frames = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
            shown = media.Media()
            if i == 0:
                clips = {"input": frames[:, ::4, ::4], **dict.fromkeys(NAMES[:2], frames), "truth": frames}
                folder = root / "media" / split / "a%2030"
                shown = media.save_clip(root, folder, clips, {"KEEP": rng.random((8, 2, 2))}, 25, 16)
                worst = media.save_worst(root, folder, "KEEP", clips, np.arange(8.0), True)
                shown.worst["KEEP"] = {**(worst or {}), "metric": "PSNR"}
            records.append({
                "split": split, "clip": clip, "number": i, "frames": 8, "size": [32, 32], "fps": 25.0,
                "degradation": [{"type": "GaussianBlur", "sigma": 1.23456}], "restorers": restorers, "failures": [],
                "media": shown.plain(),
            })  # fmt: skip
        level = "mild" if split == "mild" else None
        splits.append(split_of(split, Table(scores), ["a 30%/x", "b", "c"], NAMES, metrics, level))
    content = {
        "name": "a <test>", "versions": {"keep": "1"}, "code": "c0de", "device": "cpu", "files": {"w/net.pth": "ab"},
        "restorers": dict.fromkeys(NAMES, "a restorer"), "columns": [column_of(m) for m in metrics],
        "splits": splits, "problems": ["own: something is missing"],
    }  # fmt: skip
    write_file(root / "report.html", html.page(content, "name: x\n", records, 2).encode())
    rows = [{"part": "KEEP", "kind": "restorer", "seconds": 2.0, "share %": 100.0, "ms/frame": 1.0, "peak GiB": None}]
    rows.append({**rows[0], "part": "all", "ms/frame": None})
    write_file(root / "seconds/times.js", f"window.keepTimes = {json.dumps(rows)};\n".encode())
    return root / "report.html"


def run(page: Path, script: str, *flags: str, anchor: str = "") -> tuple[str, str]:
    """Load the page, then run ``script``, whose ``report(text)`` is given back; and what the console said."""
    more = f"""<script>
      const reported = [];
      window.report = (x) => reported.push(String(x));
      const until = async (f) => {{ for (let i = 0; i < 400 && !f();
      i++) await new Promise((r) => setTimeout(r, 10)); }};
      (async () => {{ try {{ {script} }} catch (e) {{ report("threw " + e); }}
        const out = document.createElement("pre"); out.id = "reported"; out.textContent = reported.join("\\n");
        document.body.append(out); }})();
    </script></body>"""
    copy = page.with_name("probe.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", more), encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={page.parent / 'browser'}", "--virtual-time-budget=20000", *flags,
         "--dump-dom", f"file://{copy}{anchor}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="reported">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    return found[1], "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@browser
def test_it_loads_quietly_and_asks_nothing_of_the_network(page):
    reported, console = run(page, """
        report(document.title); report(document.querySelectorAll("#splits button").length);
        report(document.querySelectorAll("#curves .chart").length);
        report(document.querySelectorAll("#stages video").length);
        report(document.querySelectorAll("#slices img").length);
        report(document.querySelectorAll("#times tbody tr").length);
        report(document.getElementById("problems").hidden);
        report(document.querySelector("#worst img").naturalWidth > 0 || "lazy");
        await until(() => [...document.querySelectorAll("#slices img")].every((i) => i.complete));
        report([...document.querySelectorAll("#slices img")].every((i) => i.naturalWidth > 0));
        report(performance.getEntriesByType("resource").filter((e) => !/^(file|data):/.test(e.name)).length);
    """)  # fmt: skip
    assert console == ""
    lines = reported.splitlines()
    assert lines[:7] == ["a &lt;test&gt;", "2", "3", "5", "4", "2", "false"]
    assert lines[8:] == ["true", "0"]


@browser
def test_the_table_sorts_by_a_click_and_says_so(page):
    reported, console = run(page, """
        const cells = (n) => [...document.querySelectorAll(`#table tbody tr td:nth-child(${n})`)];
        const rows = () => cells(1).map((n) => n.textContent).join("|");
        const values = () => cells(2).map((n) => +n.dataset.value);
        const sorted = () => document.querySelector("#table th[aria-sort]").getAttribute("aria-sort");
        report(rows());
        document.querySelector('#table button[data-column="PSNR"]').click();
        report(values().every((v, i, a) => !i || a[i - 1] >= v) + " " + sorted());
        report(document.activeElement.dataset.column);
        document.activeElement.click();
        report(values().every((v, i, a) => !i || a[i - 1] <= v) + " " + sorted());
        document.querySelector('#table button[data-column=""]').click();
        report(rows());
    """)  # fmt: skip
    assert console == ""
    first, down, focus, up, last = reported.splitlines()
    assert first == last == 'bicubic|KEEP|odd &lt;/script&gt; "name"'
    assert (down, focus, up) == ("true descending", "PSNR", "true ascending")


@browser
def test_keys_step_all_videos_together(page):
    reported, console = run(page, """
        const videos = () => [...document.querySelectorAll("#stages video")];
        await until(() => videos().every((v) => v.readyState >= 1));
        const event = (k, o) => new KeyboardEvent("keydown", { key: k, bubbles: true, ...o });
        const key = (k, o = {}) => document.body.dispatchEvent(event(k, o));
        const times = () => videos().map((v) => v.currentTime.toFixed(2)).join(" ");
        key("ArrowRight"); key("ArrowRight"); report(times()); report(document.getElementById("frame").textContent);
        key("ArrowRight", { shiftKey: true }); report(document.getElementById("frame").textContent);
        key("ArrowLeft"); report(document.getElementById("scrub").value);
        key("d"); report(document.querySelectorAll("#stages video.over").length);
        key("z"); report(document.getElementById("zoom").value);
        key("n"); report(document.getElementById("clip").selectedOptions[0].textContent); report(location.hash);
        report(document.querySelector("#stages .empty") !== null);
        key("p"); key("p"); report(location.hash);
    """)  # fmt: skip
    assert console == ""
    assert reported.splitlines() == [
        "0.10 0.10 0.10 0.10 0.10", "3 / 8", "8 / 8", "6", "2", "2", "b", "#mild/b", "true", "#mild/c"
    ]  # fmt: skip


@browser
def test_other_split_reference_and_an_address_of_a_clip(page):
    reported, console = run(page, """
        const clip = document.getElementById("clip").selectedOptions[0].textContent;
        report(document.querySelector("#splits [aria-pressed=true]").textContent + " " + clip);
        report(document.getElementById("paper").hidden);
        document.querySelectorAll("#splits button")[0].click(); report(document.getElementById("paper").hidden);
        report(document.querySelectorAll("#paper-table tbody tr").length);
        const marks = () => [...document.querySelectorAll("#forest .name title")].map((n) => n.textContent).join("|");
        report(marks());
        const select = document.getElementById("reference"); select.value = "KEEP";
        select.dispatchEvent(new Event("change"));
        report(marks());
        const before = document.documentElement.dataset.theme; document.getElementById("theme").click();
        report(before !== document.documentElement.dataset.theme);
    """, anchor="#own/c")  # fmt: skip
    assert console == ""
    odd = 'odd &lt;/script&gt; "name"'
    assert reported.splitlines() == [
        "own c", "true", "false", "8", f"KEEP|{odd}|KEEP|{odd}", f"bicubic|{odd}|bicubic|{odd}", "true"
    ]  # fmt: skip


@browser
def test_without_its_media_and_times_the_numbers_are_still_there(page, tmp_path):
    (tmp_path / "report.html").write_bytes(page.read_bytes())
    reported, _ = run(tmp_path / "report.html", """
        report(document.querySelectorAll("#table tbody tr").length);
        report(document.querySelectorAll("#curves path").length);
    """)  # fmt: skip
    assert reported.splitlines() == ["3", "7"]


def test_the_page_holds_no_address_and_no_open_script_of_a_name(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("</script>") == 3
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert NAMES[2] in json.loads(data[1])["restorers"]
