"""Console, log file, ``log.jsonl`` and TensorBoard of one run."""

import io
import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

log = logging.getLogger("keep")


def to_console(level: int = logging.INFO) -> None:
    """Show the ``keep`` logger's messages on standard output, above a progress bar where there is one."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()

    log.handlers = [h for h in log.handlers if isinstance(h, logging.FileHandler)]
    handler = Handler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(level)
    log.propagate = False


class RunLog:
    """The records of a run in its folder: ``train.log``, ``log.jsonl`` (one object a line) and ``tb/``.

    Args:
        folder: the run's folder.
        last_step: records after this step, left by a run that is now resumed, are hidden from TensorBoard.
    """

    def __init__(self, folder: Path, last_step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._file = logging.FileHandler(folder / "train.log", encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(self._file)
        self._jsonl = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._board = SummaryWriter(folder / "tb", purge_step=last_step + 1 if last_step else None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One record: name → number."""
        self._jsonl.write(json.dumps({"step": step, **values}) + "\n")
        self._jsonl.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def clip(self, name: str, step: int, frames: np.ndarray, fps: float = 8.0) -> None:
        """A clip, uint8 (T, H, W, 3): its first frame as an image, all of it as an animation when T > 1."""
        self._board.add_image(f"{name}/frame", frames[0], step, dataformats="HWC")
        if len(frames) > 1:
            self._animation(f"{name}/clip", step, frames, fps)

    def _animation(self, name: str, step: int, frames: np.ndarray, fps: float) -> None:
        # SummaryWriter.add_video needs moviepy for this; Pillow writes the same GIF.
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        data = io.BytesIO()
        pictures = [Image.fromarray(f) for f in frames]
        pictures[0].save(
            data, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0
        )  # fmt: skip
        picture = Summary.Image(
            height=frames.shape[1], width=frames.shape[2], colorspace=3, encoded_image_string=data.getvalue()
        )
        writer = self._board._get_file_writer()
        writer.add_summary(Summary(value=[Summary.Value(tag=name, image=picture)]), step)  # pyright: ignore

    def close(self) -> None:
        log.removeHandler(self._file)
        self._file.close()
        self._jsonl.close()
        self._board.close()


class Progress:
    """A progress bar on a terminal; a line every log interval anywhere (also into ``train.log``).

    A line: loss terms, learning rate, share of time spent waiting for data, seconds a step, time left.
    """

    def __init__(self, name: str, total: int, start: int) -> None:
        self._name, self._total = name, total
        self._bar = tqdm(total=total, initial=start, desc=name, unit="step", disable=not sys.stderr.isatty())
        self._steps, self._waited, self._busy = 0, 0.0, 0.0

    def step(
        self, step: int, waited: float, busy: float, values: Mapping[str, float] | None, lr: float
    ) -> dict[str, float]:
        """Count one step that waited ``waited`` seconds for data and then took ``busy`` seconds.

        With ``values``, write the line; returns its timing scalars, else ``{}``.
        """
        self._steps, self._waited, self._busy = self._steps + 1, self._waited + waited, self._busy + busy
        self._bar.update(1)
        if values is None:
            return {}
        each = (self._waited + self._busy) / self._steps
        share = self._waited / max(self._waited + self._busy, 1e-9)
        terms = "  ".join(f"{k} {v:.4g}" for k, v in values.items())
        left = time.strftime("%H:%M:%S", time.gmtime(each * (self._total - step)))
        log.info(
            f"{self._name}  {step}/{self._total}  {terms}  lr {lr:.2e}  "
            f"data {share:.0%}  {each:.2f} s/step  left {left}"
        )
        self._steps, self._waited, self._busy = 0, 0.0, 0.0
        return {"time/step": each, "time/data_share": share}

    def close(self) -> None:
        self._bar.close()
