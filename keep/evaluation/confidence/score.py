"""Does the map tell the truth? Coverage, sharpness and order of the predicted errors, on clips with a ground truth."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from keep.archs.confidence import TARGETS, ConfidenceHead, from_log
from keep.evaluation.confidence.calibrate import inside, predict
from keep.evaluation.statistics import Interval, bootstrap

WORST = 0.2
"""The share of the blocks, worst by the map, that is left out."""


@dataclass(frozen=True)
class ClipFigures:
    """The figures of one target on one clip.

    Attributes:
        clip: its name.
        split: the strength of its degradation.
        held: share of its blocks whose true error is in the interval.
        width: mean width of the intervals, in the target's unit.
        spearman: rank correlation of expected and true error within a frame, the mean over the frames.
        dropped: how much smaller the mean error is without the worst fifth by the map: 0 to 1, mean over the frames.
        error: mean true error.
        expected: mean of the middle of the expected error.
    """

    clip: str
    split: str
    held: float
    width: float
    spearman: float
    dropped: float
    error: float
    expected: float


def score_clip(head: ConfidenceHead, clip: Mapping[str, Any], split: str, target: int) -> ClipFigures:
    """Figures of a clip's maps."""
    quantiles, truth = predict(head, clip)
    quantiles = head.calibrated(quantiles)
    low, middle, high = (b[:, target].flatten(1).numpy() for b in from_log(quantiles).unbind(2))
    true = clip["errors"][:, target].reshape(len(middle), -1)
    return ClipFigures(
        clip["name"],
        split,
        inside(quantiles, truth)[:, target].float().mean().item(),
        float((high - low).mean()),
        float(np.mean([spearman(a, b) for a, b in zip(middle, true, strict=True)])),
        float(np.mean([dropped(a, b) for a, b in zip(middle, true, strict=True)])),
        float(true.mean()),
        float(middle.mean()),
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of two (N,); 0 if one is constant."""
    x, y = _ranks(a), _ranks(b)
    return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else float(np.corrcoef(x, y)[0, 1])


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks, equal for equal values."""
    _, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]


def dropped(expected: np.ndarray, true: np.ndarray) -> float:
    """By which share the mean of ``true`` falls without the fifth of the blocks whose expected error is largest."""
    kept = np.argsort(expected, kind="stable")[: round(len(expected) * (1 - WORST))]
    return float(1 - true[kept].mean() / max(true.mean(), 1e-9))


def constant_width(true: np.ndarray, share: float) -> float:
    """Width of the narrowest interval, the same for all blocks, that holds this share of the errors (N,)."""
    ordered = np.sort(true)
    count = min(len(ordered), max(1, round(share * len(ordered))))
    return float((ordered[count - 1 :] - ordered[: len(ordered) - count + 1]).min())


def figures(head: ConfidenceHead, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """All figures as plain data: for each target and split, the mean over clips with its interval, and the clips.

    Intervals resample people: the clips of a person in several splits are averaged first.
    """
    result: dict[str, Any] = {"level": head.level}
    for number, target in enumerate(TARGETS):
        rows = [score_clip(head, clip, split, number) for split, clips in splits.items() for clip in clips]
        true = np.concatenate([clip["errors"][:, number].ravel() for clips in splits.values() for clip in clips])
        held, width = (float(np.mean([getattr(row, k) for row in rows])) for k in ("held", "width"))
        constant = constant_width(true, held)
        result[target] = {
            "all": _summary(rows),
            "splits": {split: _summary([r for r in rows if r.split == split]) for split in splits},
            "least held": min(row.held for row in rows),
            "clips below 80 %": sum(row.held < 0.8 for row in rows),
            "constant width": constant,
            "narrower": 1 - width / constant,
            "clips": [asdict(row) for row in rows],
        }
    return result


def _summary(rows: Sequence[ClipFigures]) -> dict[str, dict[str, float]]:
    people: dict[str, list[ClipFigures]] = defaultdict(list)
    for row in rows:
        people[row.clip].append(row)
    return {
        name: _plain(bootstrap(np.array([np.mean([getattr(r, name) for r in own]) for own in people.values()])))
        for name in ("held", "width", "spearman", "dropped", "error", "expected")
    }


def _plain(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def table(result: Mapping[str, Any]) -> str:
    """The figures as a Markdown table, one for each target."""
    level = f"{100 * result['level']:.0f} %"
    lines = []
    for target in TARGETS:
        own, digits = result[target], 1 if target == "luma" else 3
        lines += [
            f"| {target} | {level} intervals hold | least of a clip | mean width | mean error | Spearman | "
            "without the worst fifth |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for split, row in [*own["splits"].items(), ("all", own["all"])]:
            least = min(c["held"] for c in own["clips"] if split in (c["split"], "all"))
            lines.append(
                f"| {split} | {_share(row['held'])} | {100 * least:.0f} % | {_number(row['width'], digits)} | "
                f"{_number(row['error'], digits)} | {_number(row['spearman'], 2)} | −{_share(row['dropped'])} |"
            )
        lines += [
            "",
            f"A constant interval that holds as many blocks is {own['constant width']:.{digits}f} wide: these are "
            f"{100 * own['narrower']:.0f} % narrower. {own['clips below 80 %']} of {len(own['clips'])} clips are held "
            "less than 80 %.",
            "",
        ]
    return "\n".join(lines)


def _number(value: Mapping[str, float], digits: int) -> str:
    return f"{value['mean']:.{digits}f} ({value['low']:.{digits}f}–{value['high']:.{digits}f})"


def _share(value: Mapping[str, float]) -> str:
    return f"{100 * value['mean']:.1f} % ({100 * value['low']:.1f}–{100 * value['high']:.1f})"


@torch.no_grad()
def pooled(head: ConfidenceHead, clips: Sequence[Mapping[str, Any]], target: int) -> tuple[np.ndarray, np.ndarray]:
    """(low, middle, high) of all blocks (3, N), and their true errors (N,)."""
    bands = [
        torch.stack(from_log(head.calibrated(predict(head, clip)[0])).unbind(2))[:, :, target].flatten(1)
        for clip in clips
    ]
    true = [clip["errors"][:, target].ravel() for clip in clips]
    return torch.cat(bands, dim=1).numpy(), np.concatenate(true)
