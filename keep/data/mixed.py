"""Several training sets as one: photographs and videos, FFHQ and VFHQ."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from torch.utils.data import Dataset

from keep.config.registry import DATASETS, DEGRADATIONS, Spec
from keep.data.base import SourceClip
from keep.data.cache import digest
from keep.utils.clock import Clock
from keep.utils.errors import UserError
from keep.utils.ranges import Batch, Side


@DATASETS.register()
class Mixed(Dataset[dict[str, Any]]):
    """Training clips from several datasets, in fixed shares.

    With weights (3, 1), every four samples hold three of the first dataset and one of the second, in an order drawn
    from the seed and the number of the four. Each dataset visits its own clips as if it were alone, every clip once an
    epoch of its own. So sample i is a function of (seed, i), as in :class:`keep.data.base.ClipDataset`.

    Args:
        datasets: the datasets, each with its own options; ``clip_length``, ``size`` and, where a dataset names none,
            ``degradation`` are those below.
        clip_length: frames of a clip, in all datasets.
        weights: whole numbers, one for each dataset: samples of it in every round; null: one of each.
        size: side of the ground-truth frames in pixels, in all datasets.
        degradation: steps that make the low-quality clip, for the datasets that name none.

    Raises:
        UserError: no datasets; weights that do not fit; clips that are degraded in some datasets only.
    """

    built_by_itself = ("datasets",)

    def __init__(
        self,
        datasets: tuple[Annotated[Any, DATASETS], ...],
        clip_length: Batch,
        weights: tuple[Batch, ...] | None = None,
        size: Side = 512,
        degradation: tuple[Annotated[Any, DEGRADATIONS], ...] = (),
    ) -> None:
        if not datasets or len(weights or datasets) != len(datasets):
            raise UserError(f"Mixed: weights must be {len(datasets)} whole numbers, one for each of the datasets")
        self.clip_length, self.size = clip_length, size
        self.datasets = [self._build(spec, i, degradation) for i, spec in enumerate(datasets)]
        self.pipeline = self.datasets[0].pipeline
        if len({d.pipeline is None for d in self.datasets}) > 1:
            raise UserError("Mixed: some of the datasets have a degradation and some have none; give it to Mixed")
        self.bad = tuple(line for d in self.datasets for line in d.bad)
        self.weights = tuple(weights or [1] * len(datasets))
        self._round: tuple[tuple[int, int], np.ndarray] | None = None

    def _build(self, spec: Spec, i: int, degradation: Sequence[Any]) -> Any:
        shared: dict[str, Any] = {"clip_length": self.clip_length, "size": self.size}
        defaults = {"clip_length": None, "size": 512}
        for name, value in shared.items():
            if name not in spec.options:
                raise UserError(f"Mixed: datasets.{i}: {spec.type} is no set of training clips")
            if spec.options[name] not in (value, defaults[name]):
                raise UserError(f"Mixed: datasets.{i}.{name} is {spec.options[name]}, but {name} of all is {value}")
        if not spec.options["degradation"]:
            shared["degradation"] = tuple(degradation)
        return spec.build(**shared)

    def digest(self) -> str:
        """As :meth:`keep.data.base.ClipDataset.digest`, of all datasets and their shares."""
        return digest([[d.digest() for d in self.datasets], self.weights])

    def __len__(self) -> int:
        """Number of clips in all datasets together."""
        return sum(len(d) for d in self.datasets)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return self.sample(*key)

    def sample(self, seed: int, position: int, clock: Clock | None = None) -> dict[str, Any]:
        """As :meth:`keep.data.base.ClipDataset.sample`."""
        dataset, own_seed, own_position = self.locate_sample(seed, position)
        item = dataset.sample(own_seed, own_position, clock)
        if any(d.on_bad == "skip" for d in self.datasets):  # the samples of a batch have the same keys
            item.setdefault("skipped", "")
        return item

    def clip_at(self, seed: int, position: int) -> SourceClip:
        """As :meth:`keep.data.base.ClipDataset.clip_at`."""
        dataset, own_seed, own_position = self.locate_sample(seed, position)
        return dataset.clip_at(own_seed, own_position)

    def locate_sample(self, seed: int, position: int) -> tuple[Any, int, int]:
        """The dataset of a sample, with the sample's seed and position in it."""
        number, place = divmod(position, sum(self.weights))
        if self._round is None or self._round[0] != (seed, number):
            # The third number separates this stream from those of the datasets.
            rng = np.random.default_rng([seed, number, 2])
            self._round = ((seed, number), rng.permutation(np.repeat(range(len(self.weights)), self.weights)))
        order = self._round[1]
        index = int(order[place])
        before = int((order[:place] == index).sum())
        # Each dataset has a seed of its own: otherwise all would draw the same degradations.
        own_seed = int(np.random.SeedSequence([seed, index, 3]).generate_state(1)[0])
        return self.datasets[index], own_seed, number * self.weights[index] + before
