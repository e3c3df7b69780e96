"""Records of a run: log file, ``log.jsonl``, TensorBoard and Weights & Biases."""

import contextlib
import io
import json
import logging
import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from keep.config.schema import WandbOptions
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.logging import log


class RunLog:
    """The records of a run in its folder: ``train.log``, ``log.jsonl`` (one object a line) and ``tb/``.

    A resumed run deletes the records after ``last_step``, because it repeats those steps. W&B keeps them; its charts
    have the step as their axis, and after an exact resume the values are the same.

    Args:
        folder: the run's folder.
        last_step: step that the run resumes from; 0 for a new run.
        enabled: False on all ranks but the first: nothing is opened, and every method does nothing.
        wandb: options of W&B; None sends nothing.
        options: the run's resolved options as YAML, shown by TensorBoard and W&B.

    Raises:
        UserError: ``wandb`` is given, and the package is missing or a new run cannot be opened there.
    """

    def __init__(
        self,
        folder: Path,
        last_step: int = 0,
        *,
        enabled: bool = True,
        wandb: WandbOptions | None = None,
        options: str = "",
    ) -> None:
        self._enabled = enabled
        if not enabled:
            return
        self._wandb = Wandb(folder, last_step, wandb, options) if wandb else None
        self._file = logging.FileHandler(folder / "train.log", encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(self._file)
        cut_records(folder / "log.jsonl", last_step)
        self._jsonl = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._board = open_board(folder / "tb", last_step)
        if options:
            self._board.add_text("options", "".join(f"    {line}\n" for line in options.splitlines()), last_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one record: name → number. Values that are not finite are null in ``log.jsonl``: JSON has no NaN."""
        if not self._enabled:
            return
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        try:
            self._jsonl.write(json.dumps({"step": step, **finite}) + "\n")
            self._jsonl.flush()
        except OSError as error:
            raise UserError(f"{self._jsonl.name}: cannot write: {error.strerror or error}") from None
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(step, values)

    def clip(self, name: str, step: int, frames: np.ndarray, fps: float = 8.0) -> None:
        """Write a clip, uint8 (T, H, W, 3): its first frame as an image, and an animation when T > 1."""
        if not self._enabled:
            return
        self._board.add_image(f"{name}/frame", frames[0], step, dataformats="HWC")
        if len(frames) > 1:
            self._board.add_video(f"{name}/clip", frames.transpose(0, 3, 1, 2)[None], step, fps)
        if self._wandb is not None:
            self._wandb.clip(name, step, frames, fps)

    def close(self) -> None:
        if not self._enabled:
            return
        log.removeHandler(self._file)
        self._file.close()
        for file in (self._jsonl, self._board):
            with contextlib.suppress(OSError):  # a full disk: the error of the run is the one to report
                file.close()
        if self._wandb is not None:
            self._wandb.close()


def cut_records(path: Path, step: int) -> None:
    """Delete the records after ``step`` from ``log.jsonl``, and a last line that a killed process did not finish."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] <= step:
            kept.append(f"{line}\n")
    write_file(path, "".join(kept))


def open_board(folder: Path, last_step: int) -> Any:
    """TensorBoard's writer; records of an earlier process after ``last_step`` are hidden."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
    from torch.utils.tensorboard import SummaryWriter

    class Board(SummaryWriter):
        def add_video(
            self,
            tag: str,
            vid_tensor: Any,
            global_step: int | None = None,
            fps: float = 4,
            walltime: float | None = None,
        ) -> None:
            """Clips (N, T, 3, H, W), uint8, side by side as a GIF: torch's own method needs a moviepy older than 2."""
            _, t, _, h, _ = vid_tensor.shape
            frames = np.asarray(vid_tensor).transpose(1, 3, 0, 4, 2).reshape(t, h, -1, 3)
            picture = Summary.Image(
                height=h, width=frames.shape[2], colorspace=3, encoded_image_string=to_gif(frames, fps)
            )
            summary = Summary(value=[Summary.Value(tag=tag, image=picture)])
            self._get_file_writer().add_summary(summary, global_step, walltime)  # pyright: ignore

    return Board(folder, purge_step=last_step + 1 if last_step else None)


def to_gif(frames: np.ndarray, fps: float) -> bytes:
    """Frames, uint8 (T, H, W, 3), as an endless animation."""
    from PIL import Image

    data = io.BytesIO()
    first, *rest = (Image.fromarray(f) for f in frames)
    first.save(data, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return data.getvalue()


class Wandb:
    """The run at Weights & Biases; a resumed run continues there under the id in ``wandb_id.txt``.

    Args:
        folder: the run's folder; W&B's own files go there as well.
        last_step: step that the run resumes from; 0 for a new run.
        choice: project, entity, tags, mode.
        options: the run's resolved options as YAML.
    """

    def __init__(self, folder: Path, last_step: int, choice: WandbOptions, options: str) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError("log.wandb needs the package wandb: pip install keep-vfsr[wandb]") from None
        self._api = wandb
        note = folder / "wandb_id.txt"
        if not note.exists():
            note.write_text(secrets.token_hex(4), encoding="utf-8")
        given: dict[str, Any] = {
            "project": choice.project, "entity": choice.entity, "tags": list(choice.tags), "name": folder.name,
            "dir": str(folder), "id": note.read_text(encoding="utf-8").strip(), "resume": "allow",
            "config": yaml.safe_load(options or "{}"),
        }  # fmt: skip
        try:
            self._run = wandb.init(mode=choice.mode, **given)
        except Exception as error:  # wandb raises many kinds: no account, no network, unknown team
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            if not last_step:
                raise UserError(f"log.wandb: cannot open the run: {reason}; or set log.wandb.mode to offline") from None
            log.warning(f"warning: cannot reach W&B ({reason}); this part of the run is kept for `wandb sync`")
            self._run = wandb.init(mode="offline", **given)
        self._run.define_metric("*", step_metric="step")  # wandb's own counter cannot go back to the resumed step

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        self._run.log({"step": step, **values})

    def clip(self, name: str, step: int, frames: np.ndarray, fps: float) -> None:
        shown = {f"{name}/frame": self._api.Image(frames[0])}
        if len(frames) > 1:
            shown[f"{name}/clip"] = self._api.Video(io.BytesIO(to_gif(frames, fps)), format="gif")
        self.log(step, shown)

    def close(self) -> None:
        self._run.finish()
