"""The one evaluator: validation while training and ``keep.test`` both call it.

A restorer is anything callable on one clip: LQ frames (T, 3, h, w) in [-1, 1] → frames (T, 3, H, W) in [-1, 1].
Scores are taken on frames rounded to uint8, averaged over the frames of a clip, then over clips.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from keep.data.frames import to_float, to_uint8
from keep.errors import UserError

Restorer = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class ClipScore:
    """One clip by one restorer.

    Attributes:
        frames: T.
        per_frame: metric name → (T,) values.
        seconds: time of the restorer alone.
        degradation: JSON of what was drawn for the clip.
    """

    clip: str
    restorer: str
    frames: int
    per_frame: Mapping[str, np.ndarray]
    seconds: float
    degradation: str = ""

    def mean(self, metric: str) -> float:
        return float(np.mean(self.per_frame[metric]))


@dataclass
class Table:
    """Scores of every clip by every restorer."""

    scores: list[ClipScore] = field(default_factory=list)

    def restorers(self) -> list[str]:
        return list(dict.fromkeys(s.restorer for s in self.scores))

    def mean(self, restorer: str, metric: str) -> float:
        """Mean over clips of the clips' means."""
        return float(np.mean([s.mean(metric) for s in self.scores if s.restorer == restorer]))

    def frames_per_second(self, restorer: str) -> float:
        rows = [s for s in self.scores if s.restorer == restorer]
        return sum(s.frames for s in rows) / max(sum(s.seconds for s in rows), 1e-9)


@torch.no_grad()
def evaluate(
    restorers: Mapping[str, Restorer],
    dataset: Any,
    metrics: Sequence[Any],
    device: torch.device,
    seed: int = 0,
    on_clip: Callable[[int, str, Mapping[str, torch.Tensor]], None] | None = None,
    title: str = "test",
) -> Table:
    """Restore and score every clip of ``dataset`` with every restorer.

    A dataset without degradation (stage I) gives its ground truth as the input.

    Args:
        restorers: column name → restorer.
        dataset: see :mod:`keep.data.clips`; clip i is ``dataset[seed, i]``.
        metrics: objects with ``name`` and ``(output, target) → (T,) values`` on uint8 frames.
        device: where the restorers run.
        seed: of the degradations.
        on_clip: called with (index, clip name, panels) for each clip; panels are uint8 (T, 3, H, W): ``input``
            (at its own size), one for each restorer, ``truth``.
        title: on the progress bar.
    """
    if taken := {"input", "truth"} & restorers.keys():
        raise UserError(f"restorers: {', '.join(taken)} is the name of a panel; choose another")
    table = Table()
    for i in tqdm(range(len(dataset)), desc=title, unit="clip", leave=False, delay=2):
        sample = dataset[seed, i]
        truth = sample["gt"]
        source = sample.get("lq", truth)
        panels = {"input": source}
        for name, restorer in restorers.items():
            frames = to_float(source.to(device))
            start = time.perf_counter()
            output = to_uint8(restorer(frames))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - start
            if output.shape != truth.shape:
                raise UserError(
                    f"restorer {name!r} gave {tuple(output.shape)} for clip {sample['name']}, "
                    f"but its ground truth is {tuple(truth.shape)}"
                )
            scores = {m.name: m(output, truth.to(device)) for m in metrics}
            drawn = sample.get("degradation", "")
            table.scores.append(ClipScore(sample["name"], name, len(truth), scores, seconds, drawn))
            panels[name] = output.cpu()
        if on_clip is not None:
            on_clip(i, sample["name"], {**panels, "truth": truth})
    return table
