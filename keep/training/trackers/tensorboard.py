"""TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keep.config.registry import TRACKERS
from keep.training.trackers.base import Tracker, to_gif
from keep.utils.errors import UserError


@TRACKERS.register()
class TensorBoard(Tracker):
    """TensorBoard, in the folder ``tb`` of the run: ``tensorboard --logdir experiments``."""

    def __init__(self) -> None:
        try:
            from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("the tracker TensorBoard needs its package: pip install tensorboard") from None
        self._summary, self._writer = Summary, SummaryWriter

    def open(self, folder: Path, last_step: int, options: str) -> None:
        """Records of an earlier process after ``last_step`` are hidden."""
        self._board = self._writer(str(folder / "tb"), purge_step=last_step + 1 if last_step else None)
        if options:
            self._board.add_text("options", "".join(f"    {line}\n" for line in options.splitlines()), last_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def clip(self, name: str, step: int, frames: np.ndarray, fps: float) -> None:
        """Its first frame as an image, and an animation when T > 1: torch's add_video needs a moviepy older than 2."""
        self._board.add_image(f"{name}/frame", frames[0], step, dataformats="HWC")
        if len(frames) > 1:
            _, height, width, _ = frames.shape
            picture = self._summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=to_gif(frames, fps)
            )
            summary: Any = self._summary(value=[self._summary.Value(tag=f"{name}/clip", image=picture)])
            self._board._get_file_writer().add_summary(summary, step)  # pyright: ignore[reportOptionalMemberAccess]

    def close(self, failed: bool) -> None:
        self._board.close()
