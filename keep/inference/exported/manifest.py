"""What an exported file says about itself: its inputs, outputs and states, and the flow it expects."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keep.utils.errors import UserError

KEY = "keep"
"""Name of the entry in the file's metadata."""
FORMAT = 1


@dataclass(frozen=True)
class Port:
    """An input or output of the exported graph.

    Attributes:
        name: its name in the file.
        shape: its shape; -1 is the batch.
        dtype: name of its type: ``float32``, ``float16`` or ``int64``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def sized(self, batch: int) -> tuple[int, ...]:
        """Its shape for a batch of this size."""
        return tuple(batch if side == -1 else side for side in self.shape)

    def zeros(self, batch: int) -> np.ndarray:
        return np.zeros(self.sized(batch), self.dtype)

    def tensor(self, batch: int) -> Tensor:
        return torch.zeros(self.sized(batch), dtype=getattr(torch, self.dtype))


@dataclass(frozen=True)
class Manifest:
    """Stored as JSON in the metadata of every exported file.

    Attributes:
        image_size: side S of the frames.
        dtype: ``float32`` or ``float16``: what most of the graph computes in.
        flow: the flow estimator as in the options, if the flow is an input; None: it is estimated in the graph.
        inputs: in order.
        outputs: in order.
        weights: name of the weight file.
        version: version of this package.
    """

    image_size: int
    dtype: str
    flow: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights: str
    version: str

    @property
    def states(self) -> Iterator[tuple[Port, str]]:
        """Each state's input, and the name of the output that is its next value."""
        for port in self.inputs:
            if port.name.startswith("state_"):
                yield port, port.name.replace("state_", "next_", 1)

    @property
    def takes_flow(self) -> bool:
        return any(port.name == "flow" for port in self.inputs)

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | None, path: Path) -> "Manifest":
        """
        Args:
            text: the entry of the metadata; None: there is none.
            path: its file, for messages.

        Raises:
            UserError: the file was not written by ``keep.export``, or by a later version.
        """
        try:
            found = json.loads(text or "")
            written = found.pop("format")
            if written != FORMAT:
                raise UserError(f"{path}: exported by another version ({found.get('version')}): export it again")
            for side in ("inputs", "outputs"):
                found[side] = tuple(Port(p["name"], tuple(p["shape"]), p["dtype"]) for p in found[side])
            return cls(**found)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not exported by keep.export (it has no description of its states)") from error
