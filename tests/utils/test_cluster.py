"""``--engine ray`` with a Ray of two workers: the same files as without, also where a worker is killed."""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import tiny_file

from keep import restore
from keep import test as keep_test
from keep.data.video_io import write_video
from keep.utils import cluster
from keep.utils.cluster import Share

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")


@pytest.fixture(autouse=True)
def _alone(monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def orders(tmp_path_factory) -> Iterator[Path]:
    """A Ray of two workers. A file NAME in this folder is an order to the worker that writes the video NAME, carried
    out once, in the middle of the video: ``kill`` the worker, or ``stop`` the run and wait until that is known."""
    folder, place = tmp_path_factory.mktemp("orders"), tempfile.mkdtemp(prefix="ray_")
    orders, driver = str(folder), os.getpid()

    def obey() -> None:  # in each worker; nested, so that Ray sends it as code: workers cannot import the tests
        import os
        import signal
        import time
        from pathlib import Path

        import ray

        from keep.data.mux import VideoWriter

        write = VideoWriter.write

        def writes(self: Any, image: Any, frame: Any) -> None:
            write(self, image, frame)
            order = Path(orders, self.path.name)
            if frame.index != 5 or not order.exists():
                return
            what = order.read_text()
            order.unlink()
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            os.kill(driver, signal.SIGTERM)
            while not ray.get_runtime_context().is_canceled():
                time.sleep(0.01)

        VideoWriter.write = writes

    before = signal.getsignal(signal.SIGTERM)
    others = descendants(os.getpid())  # of other tests: data workers, the resource tracker
    cluster.start(num_cpus=2, _temp_dir=place, runtime_env={"worker_process_setup_hook": obey})
    yield folder
    import ray  # not before: it reads variables that cluster.start sets

    started = descendants(os.getpid()) - others
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)
    shutil.rmtree(place, ignore_errors=True)
    assert len(started) > 3
    end = time.monotonic() + 60
    while left := [process for process in started if alive(process)]:
        assert time.monotonic() < end, f"processes of Ray are left: {left}"


def descendants(process: int) -> set[int]:
    """All processes that this one started, directly or not."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    found, new = set(), {process}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= new
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return str(tiny_file(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Three videos of aligned faces, one of them cut off, and a file that is none."""
    folder = tmp_path_factory.mktemp("in")
    y, x = np.mgrid[:64, :64]
    for name, length in (("long", 12), ("short", 4), ("broken", 9)):
        frames = np.zeros((length, 64, 64, 3), np.uint8)
        for t in range(length):
            frames[t, ..., 0] = 120 + 100 * np.sin((x + 3 * t) / 9)
            frames[t, ..., 1:] = (2 * y + t + length)[..., None] % 256
        write_video(folder / f"{name}.mkv", frames, 25)
    whole = (folder / "broken.mkv").read_bytes()
    (folder / "broken.mkv").write_bytes(whole[: int(0.8 * len(whole))])
    (folder / "text.mp4").write_text("no video" * 99)
    return folder


def run(videos: Path, out: Path, weights: str, *more: str) -> int:
    """FFV1: x264 gives other bytes in every run at some small sizes, on processors with AVX-512."""
    words = ["-o", out, "-w", weights, "--aligned", "--codec", "ffv1"]
    device = [] if "--device" in more else ["--device", "cpu"]
    return restore.main([str(word) for word in (videos, *words, *device, *more)])


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def facts(text: str) -> list[str]:
    """What a run says, without times and memory, in any order."""
    lines = [re.sub(r" in [\d.]+ s .*", "", line) for line in text.splitlines()]
    return sorted(line for line in lines if not re.match(r"  (time|peak memory):", line))


@needs_ray
def test_workers_restore_the_same_files_when_one_is_killed(tmp_path, orders, videos, weights, capsys) -> None:
    assert run(videos, tmp_path / "here", weights, "--threads", "1", "--compare") == 2
    here = capsys.readouterr()
    (orders / "long.mkv").write_text("kill")
    assert run(videos, tmp_path / "ray", weights, "--engine", "ray", "--compare") == 2
    ray = capsys.readouterr()
    assert not (orders / "long.mkv").exists(), "the worker was killed in the middle of the video"
    assert files(tmp_path / "ray") == files(tmp_path / "here")
    assert len(files(tmp_path / "ray")) == 6
    assert [line for line in ray.err.splitlines() if "error" in line] == here.err.splitlines()
    repeated = "warning: a worker died; its job is repeated (1 of 2)"
    assert facts(ray.out) == sorted([repeated, *facts(here.out.replace("/here/", "/ray/"))])


@needs_ray
def test_a_stop_leaves_nothing_unfinished(tmp_path, orders, videos, weights, capsys) -> None:
    (orders / "long.mkv").write_text("stop")
    assert run(videos / "long.mkv", tmp_path / "out/long.mkv", weights, "--engine", "ray") == 130
    assert not (orders / "long.mkv").exists()
    assert files(tmp_path) == {}
    assert capsys.readouterr().err.endswith("stopped\n")


PLUGIN = """
import os, signal
from pathlib import Path
from keep.config.registry import BASELINES

@BASELINES.register()
class Mortal:
    '''Nearest neighbour; while there is a file ``order``, a call removes it and kills the process.

    Args:
        order: the file.
    '''
    def __init__(self, order: str = "") -> None:
        self.order = Path(order)
    def to(self, device):
        return self
    def __call__(self, lq):
        if self.order.is_file():
            self.order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return lq.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "mortal.py"
    path.write_text(PLUGIN)
    return path


def options_of_a_test(folder: Path, clips: Path, plugin: Path) -> list[str]:
    """Two clips, two restorers; the file ``order`` in the folder kills a process."""
    data = {"type": "VideoClips", "root": str(clips), "size": 32, "max_frames": 3}
    content = {
        "name": "run", "threads": 1, "plugins": [str(plugin)], "metrics": ["PSNR"],
        "data": {"a": {**data, "degradation": [{"type": "Downsample", "scale": 4}]}},
        "restorers": {"bicubic": "Bicubic", "mortal": {"type": "Mortal", "order": str(folder / "order")}},
        "save": {"clips": 0, "worst": 1},
    }  # fmt: skip
    (folder / "options.yml").write_text(json.dumps(content))
    return ["-opt", str(folder / "options.yml")]


@needs_ray
def test_workers_score_the_same_when_one_is_killed(tmp_path, orders, clips, plugin, monkeypatch, capsys) -> None:
    options, left = options_of_a_test(tmp_path, clips, plugin), []
    for name, engine in (("here", []), ("ray", ["--engine", "ray", "--ray-cpus", "2"])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if engine:
            (tmp_path / "order").touch()
        assert keep_test.main([*options, *engine]) == 0
        found = files(tmp_path / name / "results/run")
        left.append({k: v for k, v in found.items() if not k.startswith("seconds/")})
    assert not (tmp_path / "order").exists(), "the worker was killed in the middle of a clip"
    assert left[0] == left[1]
    assert "results.json" in left[0]
    assert "its job is repeated (1 of 2)" in capsys.readouterr().out


@pytest.fixture
def without_ray(monkeypatch) -> None:
    """This process does the jobs; the worker of the first one dies again and again."""

    def spread(make: Any, jobs: Any, *_: Any) -> Iterator[tuple[int, Any]]:
        work = make()
        for number, job in enumerate(jobs):
            yield number, work(job) if number else cluster.Died("its worker died 3 times")

    monkeypatch.setattr(cluster, "check_installed", lambda: None)
    monkeypatch.setattr(cluster, "check_cancelled", lambda: None)
    monkeypatch.setattr(cluster, "connected", contextlib.nullcontext)
    monkeypatch.setattr(cluster, "share_of", lambda *_: Share())
    monkeypatch.setattr(cluster, "spread", spread)


@pytest.mark.usefixtures("without_ray")
def test_a_video_that_ends_its_workers_fails_alone(tmp_path, videos, weights, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    largest = max(videos.iterdir(), key=lambda file: file.stat().st_size)
    left = [out / f".{largest.stem}{extra}.{2**22 + 1}-ab12.mkv" for extra in ("", ".compare")]
    for file in left:
        file.touch()
    assert run(videos, out, weights, "--engine", "ray", "--compare") == 2
    assert f"error: {largest}: its worker died 3 times\n" in capsys.readouterr().err
    assert len(files(out)) == 4
    assert not any(file.exists() for file in left)


@pytest.mark.usefixtures("without_ray")
def test_a_clip_that_ends_its_workers_is_in_the_report(tmp_path, clips, plugin, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    options = options_of_a_test(tmp_path, clips, plugin)
    assert keep_test.main([*options, "--engine", "ray"]) == 1
    assert "error: a/disc0: its worker died 3 times" in capsys.readouterr().out
    (clip,) = json.loads(Path("results/run/results.json").read_text())["clips"][:1]
    assert clip["failures"][0]["message"] == "its worker died 3 times"
    assert keep_test.main(options) == 0, "the next run tries the clip again"
    assert "1 already scored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ray-gpus", "0.5"], "--ray-gpus needs --engine ray"),
        (["--ray-cpus", "2"], "--ray-cpus needs --engine ray"),
        (["--engine", "ray", "--ray-gpus", "1.5"], "--ray-gpus: more than one GPU must be a whole number, not 1.5"),
        (["--engine", "ray", "--device", "cuda:1"], "use the device cuda, not cuda:1"),
        (["--engine", "ray", "--ray-gpus", "1"], "--ray-gpus: the device is cpu, so a worker needs no GPU"),
    ],
)
def test_options_that_do_not_fit_together(tmp_path, videos, weights, capsys, words, message) -> None:
    assert run(videos, tmp_path / "out", weights, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_ray_does_not_run_under_torchrun(tmp_path, videos, weights, capsys, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(videos, tmp_path / "out", weights, "--engine", "ray") == 2
    assert capsys.readouterr().err == "error: --engine ray starts its workers itself: use it without torchrun\n"


def test_without_ray_one_line_names_the_extra(tmp_path, videos, weights, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(videos, tmp_path / "out", weights, "--engine", "ray") == 2
    assert capsys.readouterr().err == 'error: --engine ray needs the package ray: pip install "keep-vfsr[ray]"\n'


@pytest.mark.parametrize(
    ("machine", "share", "places"),
    [
        ((8, 0), Share(), 8),
        ((8, 0), Share(3), 2),
        ((8, 2), Share(1, 0.5), 4),
        ((8, 2), Share(1, 0.4), 4),  # a worker does not get parts of two GPUs
        ((3, 2), Share(1, 0.5), 3),
        ((8, 3), Share(1, 2), 1),
        ((8, 0), Share(1, 0.5), 0),
    ],
)
def test_how_many_workers_a_machine_holds(machine, share, places) -> None:
    assert cluster._places(machine[0], machine[1], share) == places


def test_a_worker_without_a_share_of_a_gpu_uses_none() -> None:
    assert [Share(gpus=0.5).device(name) for name in ("auto", "cuda")] == ["cuda", "cuda"]
    assert [Share().device(name) for name in ("auto", "cpu", "cuda")] == ["cpu", "cpu", "cuda"]
