"""Jobs for tests of the GPU kit, ``python -c CODE FOLDER SECONDS …``, and a kit that runs two of them.

None of them imports torch.
"""

import sys
from pathlib import Path
from typing import Any

from scripts.gpu_kit.jobs import Job
from scripts.gpu_kit.kit import Kit

FAILS = "raise ValueError('no such card')"
HANGS = "import signal; signal.pause()"
ROWS = """
import json, sys, pathlib
rows = [{"path": "plain", "frames/s": 2.5}]
pathlib.Path(sys.argv[1], "speed.json").write_text(json.dumps({"rows": rows}))
if len(sys.argv) > 3:
    pathlib.Path(sys.argv[3]).write_text(json.dumps({"more": rows}))
"""
STUBBORN = """
import pathlib, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
path = pathlib.Path(sys.argv[1], "child")
path.with_name("new").write_text(str(child.pid))
path.with_name("new").rename(path)
signal.pause()
"""
TRAINS = """
import os, pathlib, signal, sys, time
import numpy as np, safetensors.numpy
from keep.utils.io import write_file
folder, end = pathlib.Path(sys.argv[3]), time.monotonic() + float(sys.argv[2]) - 0.5
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
write_file(folder / "pid", str(os.getpid()))
write_file(folder / "train.log", "step 1")
def save(step):
    tensors = {"w": np.random.default_rng(len(step)).standard_normal(2000).astype(np.float32)}
    write_file(folder / "models/net_latest.safetensors", safetensors.numpy.save(tensors, {"step": step}))
n = 0
most = int(sys.argv[4]) if len(sys.argv) > 4 else 10**9
while not stop and time.monotonic() < end and n < most:
    n += 1
    save(str(n))
    time.sleep(0.02)
save("last")
sys.exit(75 if stop else 0)
"""


def job(name: str, code: str, seconds: float | None = 30.0, *words: str, **more: Any) -> Job:
    return Job(name, name, [sys.executable, "-c", code, "@FOLDER", "@SECONDS", *words], seconds, **more)


def main(folder: Path) -> None:
    """Run a measurement and a training until something ends this process."""
    run = folder / "experiments/one"
    train = job("train", TRAINS, None, str(run), run=run, ok=(0, 75))
    Kit([job("rows", ROWS), train], folder / "out", folder / "work", 60.0, every=0.05).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
