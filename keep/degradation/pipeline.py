"""A degradation pipeline: steps drawn once per clip, applied in order, recorded so that they can be replayed.

A step (registered in ``DEGRADATIONS``) has two methods and two optional ones:

- ``draw(rng) -> dict``: its random parameters for one clip, plain JSON data;
- ``apply(clip, **drawn) -> clip``: float32 (T, H, W, 3) RGB in [0, 255] to the same, deterministic;
- ``fuse(drawn, following) -> (count, function) | None``: a faster function for this step and the next ``count`` of
  ``following`` (pairs of step and drawn) in one, with the same result up to float rounding; it also takes uint8;
- ``at(size) -> step``: the step for frames of that side, where its options are given for another (``sigma_at``).
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from keep.utils.errors import UserError

Drawn = dict[str, Any]
T = TypeVar("T")


class Pipeline:
    """Degrades a clip by a list of steps: eq. (9) without its final ↑, which runs on the device.

    Args:
        steps: built degradation steps, applied in order.
        size: side of the clips in pixels; steps whose σ is given for another size (``sigma_at``) are scaled to it.
            None: every σ is taken as it is given.
    """

    def __init__(self, steps: Sequence[Any], size: int | None = None) -> None:
        self.steps = tuple(step.at(size) if size is not None and hasattr(step, "at") else step for step in steps)

    def __call__(self, clip: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[Drawn]]:
        """Draw one set of parameters for the clip and apply it.

        Args:
            clip: uint8 (T, H, W, 3) RGB.
            rng: the only source of randomness; the same state gives the same bytes.

        Returns:
            the low-quality clip, uint8 (T, h, w, 3), and the drawn parameters, ``[{"type": step, …}, …]``.
        """
        drawn = self.draw(rng)
        return self.replay(clip, drawn), drawn

    def draw(self, rng: np.random.Generator) -> list[Drawn]:
        """One set of parameters for one clip."""
        return [{"type": type(step).__name__, **step.draw(rng)} for step in self.steps]

    def replay(self, clip: np.ndarray, drawn: Sequence[Drawn], clock: dict[str, float] | None = None) -> np.ndarray:
        """Apply recorded parameters: the same clip and ``drawn`` give the same bytes.

        Args:
            clip: uint8 (T, H, W, 3) RGB.
            drawn: from :meth:`draw`, or read back from JSON.
            clock: the seconds of each stage are added to it, by the names of its steps (``"A+B"`` for fused ones).

        Raises:
            UserError: ``drawn`` was recorded by other steps.
        """
        return to_uint8(self._run(clip, self._recorded(drawn), clock))

    def before_codec(self, clip: np.ndarray, drawn: Sequence[Drawn]) -> np.ndarray:
        """The input of the last codec step, as it rounds it: uint8 (T, h, w, 3).

        Raises:
            UserError: no step is a codec.
        """
        return to_uint8(self._run(clip, self._recorded(drawn)[: self._codec()]))

    def stream(self, clip: np.ndarray, drawn: Sequence[Drawn]) -> bytes:
        """The video file (MP4) of the last step, a codec; decoded, it equals the result of :meth:`replay`.

        Raises:
            UserError: the last step is not a codec.
        """
        index = self._codec()
        if index != len(self.steps) - 1:
            raise UserError("degradation: the stream of a clip needs the codec as the last step")
        parameters = {k: v for k, v in drawn[index].items() if k != "type"}
        return self.steps[index].backend.encode(self.before_codec(clip, drawn), **parameters)

    def _recorded(self, drawn: Sequence[Drawn]) -> list[tuple[Any, Drawn]]:
        recorded, own = [d["type"] for d in drawn], [type(step).__name__ for step in self.steps]
        if recorded != own:
            raise UserError(
                f"cannot replay a degradation: it was recorded with steps {recorded}, the pipeline has {own}"
            )
        return [(s, {k: v for k, v in d.items() if k != "type"}) for s, d in zip(self.steps, drawn, strict=True)]

    def _run(
        self, clip: np.ndarray, recorded: Sequence[tuple[Any, Drawn]], clock: dict[str, float] | None = None
    ) -> np.ndarray:
        for name, function in stages(recorded):
            start = time.perf_counter()
            clip = function(clip)
            if clock is not None:
                clock[name] = clock.get(name, 0.0) + time.perf_counter() - start
        return clip

    def _codec(self) -> int:
        """The index of the last codec step."""
        indices = [i for i, step in enumerate(self.steps) if hasattr(step, "backend")]
        if not indices:
            raise UserError("degradation: no step is a codec")
        return indices[-1]


def stages(recorded: Sequence[tuple[Any, Drawn]]) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """(name, function) of each stage: a step, or several fused ones."""
    index = 0
    while index < len(recorded):
        step, drawn = recorded[index]
        fused = step.fuse(drawn, recorded[index + 1 :]) if hasattr(step, "fuse") else None
        more, function = fused or (
            0,
            lambda clip, step=step, drawn=drawn: step.apply(clip.astype(np.float32, copy=False), **drawn),
        )
        yield "+".join(type(s).__name__ for s, _ in recorded[index : index + more + 1]), function
        index += more + 1


def to_uint8(clip: np.ndarray) -> np.ndarray:
    """Round to the nearest integer and clip to [0, 255]."""
    return np.rint(clip).clip(0, 255).astype(np.uint8)


def check_range(step: object, option: str, bounds: tuple[float, float]) -> None:
    """Raise UserError unless ``bounds`` is (low, high) with 0 ≤ low ≤ high."""
    low, high = bounds
    if not 0 <= low <= high:
        raise UserError(f"{type(step).__name__}: {option} must be [low, high] with 0 <= low <= high, got {bounds}")


def scaled_sigma(step: Any, size: int) -> Any:
    """A copy of ``step`` for clips of side ``size``, its ``sigma`` times size / ``sigma_at``; without one, itself."""
    if step.sigma_at is None:
        return step
    own = copy.copy(step)
    own.sigma, own.sigma_at = tuple(s * size / step.sigma_at for s in step.sigma), None
    return own


def check_choice(step: object, option: str, values: Sequence[Any], probabilities: Sequence[float] | None) -> None:
    """Raise UserError unless there are values, and as many probabilities with sum 1."""
    name = type(step).__name__
    if not values:
        raise UserError(f"{name}: {option} is empty; name at least one")
    if probabilities is not None and (len(probabilities) != len(values) or abs(sum(probabilities) - 1) > 1e-6):
        raise UserError(
            f"{name}: probabilities must be {len(values)} numbers that sum to 1, one for each of {option}; "
            f"got {list(probabilities)}"
        )


def choose(rng: np.random.Generator, values: Sequence[T], probabilities: Sequence[float] | None) -> T:
    """One of ``values``, all equally likely without ``probabilities``."""
    if probabilities is None:
        return values[int(rng.integers(len(values)))]
    return values[int(rng.choice(len(values), p=np.array(probabilities) / sum(probabilities)))]
