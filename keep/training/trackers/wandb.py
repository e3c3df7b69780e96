"""Weights & Biases."""

import io
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from keep.config.registry import TRACKERS
from keep.training.trackers.base import Tracker, to_gif
from keep.utils.errors import UserError, first_line
from keep.utils.io import write_file
from keep.utils.logging import log


@TRACKERS.register()
class WandB(Tracker):
    """Weights & Biases; needs the extra ``wandb``.

    A resumed run continues under the id in ``wandb_id.txt``. W&B keeps the records after the step it resumes from; its
    charts have the step as their axis, and after an exact resume the values are the same.

    Args:
        project: project at Weights & Biases.
        entity: team or user; null: the account's own.
        tags: tags of the run.
        mode: online, or offline: write to the run's folder only; ``wandb sync`` sends it later.
    """

    def __init__(
        self,
        project: str = "keep",
        entity: str | None = None,
        tags: tuple[str, ...] = (),
        mode: Literal["online", "offline"] = "online",
    ) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError("the tracker WandB needs the package wandb: pip install keep-vfsr[wandb]") from None
        self._api, self._mode = wandb, mode
        self._given: dict[str, Any] = {"project": project, "entity": entity, "tags": list(tags)}

    def open(self, folder: Path, last_step: int, options: str) -> None:
        note = folder / "wandb_id.txt"
        if not note.exists():
            write_file(note, secrets.token_hex(4))
        given = {
            **self._given, "name": folder.name, "dir": str(folder), "id": note.read_text(encoding="utf-8").strip(),
            "resume": "allow", "config": yaml.safe_load(options or "{}"),
        }  # fmt: skip
        try:
            self._run = self._api.init(mode=self._mode, **given)
        except Exception as error:  # wandb raises many kinds: no account, no network, unknown team
            reason = first_line(error)
            if not last_step:
                raise UserError(f"WandB: cannot open the run: {reason}; or set its option mode to offline") from None
            log.warning(f"warning: cannot reach W&B ({reason}); this part of the run is kept for `wandb sync`")
            self._run = self._api.init(mode="offline", **given)
        self._run.define_metric("*", step_metric="step")  # wandb's own counter cannot go back to the resumed step

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        self._run.log({"step": step, **values})

    def clip(self, name: str, step: int, frames: np.ndarray, fps: float) -> None:
        shown = {f"{name}/frame": self._api.Image(frames[0])}
        if len(frames) > 1:
            shown[f"{name}/clip"] = self._api.Video(io.BytesIO(to_gif(frames, fps)), format="gif")
        self.scalars(step, shown)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
