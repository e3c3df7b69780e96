"""MLflow."""

import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from keep.config.registry import TRACKERS
from keep.training.trackers.base import Tracker, to_gif
from keep.utils.errors import UserError, first_line, plain
from keep.utils.io import write_file
from keep.utils.nested import flat
from keep.utils.network import check_reachable

BATCH = 100
"""The most parameters that MLflow takes at once."""
LONGEST = 500
"""The longest value of a parameter that every store of MLflow takes; longer ones are cut."""


@TRACKERS.register()
class MLflow(Tracker):
    """MLflow, a server or a local store; needs the extra ``mlflow``.

    A resumed run continues under the id in ``mlflow_id.txt``. MLflow keeps the records after the step it resumes from;
    after an exact resume the values are the same.

    Args:
        uri: tracking server (``http://…``) or local store (``sqlite:///mlflow.db``); null:
            $MLFLOW_TRACKING_URI, or MLflow's default.
        experiment: name of the experiment, made if it does not exist.
        tags: tags of the run.
    """

    def __init__(self, uri: str | None = None, experiment: str = "keep", tags: dict[str, str] = {}) -> None:  # noqa: B006
        try:
            import mlflow
            import mlflow.entities
        except ImportError:
            raise UserError("the tracker MLflow needs the package mlflow: pip install keep-vfsr[mlflow]") from None
        self._api, self._uri, self._experiment, self._tags = mlflow, uri, experiment, dict(tags)

    def open(self, folder: Path, last_step: int, options: str) -> None:
        uri = self._uri or self._api.get_tracking_uri()
        if uri.startswith(("http://", "https://")):  # MLflow alone would try for minutes
            check_reachable(uri, "MLflow: the server")
        try:
            self._client = self._api.MlflowClient(tracking_uri=self._uri)
            self._id = self._run_id(folder)
            self._log_options(options)
        except Exception as error:  # of the store: no server, no permission, a locked file
            raise UserError(f"MLflow: cannot open the run: {first_line(error)}") from None

    def _run_id(self, folder: Path) -> str:
        """The run of this folder; a new one where there is none."""
        note = folder / "mlflow_id.txt"
        if note.exists():
            run = note.read_text(encoding="utf-8").strip()
            self._client.update_run(run, status="RUNNING")
            return run
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self._experiment)
        run = self._client.create_run(experiment, run_name=folder.name, tags=self._tags).info.run_id
        write_file(note, run)
        return run

    def _log_options(self, options: str) -> None:
        """The options as a file, and each as a parameter, where it has no other value from before a resume."""
        if not options:
            return
        self._client.log_text(self._id, options, "options.yml")
        given, known = parameters(yaml.safe_load(options)), self._client.get_run(self._id).data.params
        rows = [self._api.entities.Param(k, v) for k, v in given.items() if k not in known]
        for start in range(0, len(rows), BATCH):
            self._client.log_batch(self._id, params=rows[start : start + BATCH])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        rows = [self._api.entities.Metric(allowed(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=rows)

    def clip(self, name: str, step: int, frames: np.ndarray, fps: float) -> None:
        """As an artifact ``NAME/STEP.gif``; a single frame is a still."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{step:08d}.gif"
            path.write_bytes(to_gif(frames, fps))
            self._client.log_artifact(self._id, str(path), name)

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._id, status="FAILED" if failed else "FINISHED")


def allowed(name: str) -> str:
    """``name`` without the characters that MLflow does not take: ``val/PSNR (ema)`` becomes ``val/PSNR ema``."""
    return re.sub(r"[^/\w.\- ]", "", name)


def parameters(options: Any) -> dict[str, str]:
    """Nested options as MLflow takes them: ``a.b.c`` → text."""
    return {allowed(key): plain(value)[:LONGEST] for key, value in flat(options)}
