"""The part of source frames that is degraded before the faces in it are aligned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from keep.data.images import tone_curves
from keep.faces.align import crop, invert, scale_of, transform
from keep.utils.errors import UserError

MARGIN = 1 / 16  # around what the aligned frames show, as a share of their side: what a blur and a codec reach


@dataclass(frozen=True)
class Region:
    """A fixed window of the source frames, enlarged or reduced so that faces have the scale of the ground truth.

    Attributes:
        frames: uint8 (T, h, w, 3).
        matrices: (T, 2, 3), from pixels of ``frames`` to pixels of the aligned ground truth.
        size: side of the ground truth in pixels.
    """

    frames: np.ndarray
    matrices: np.ndarray
    size: int

    @classmethod
    def around(cls, frames: np.ndarray, matrices: Sequence[np.ndarray], size: int, multiple: int) -> "Region":
        """The region that holds all that the aligned frames show, with a margin, as far as the frames reach.

        Args:
            frames: uint8 (T, H, W, 3), the source frames.
            matrices: from pixels of each source frame to those of the aligned frame, similarities (2, 3).
            size: side of the aligned frames.
            multiple: divides height and width of the region; frames too small for that are continued by their last
                rows and columns.
        """
        scale = float(np.exp(np.mean([np.log(scale_of(m)) for m in matrices])))
        enlarge = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])  # pixel centres at whole numbers
        corners = np.array([[x, y] for x in (-0.5, size - 0.5) for y in (-0.5, size - 0.5)])
        seen = np.concatenate([transform(enlarge, transform(invert(m), corners)) for m in matrices])
        whole = np.ceil(scale * np.array(frames.shape[2:0:-1]))  # width, height
        first = np.clip(np.floor(seen.min(0) - MARGIN * size), 0, np.maximum(whole - multiple, 0))
        last = np.clip(np.ceil(seen.max(0) + MARGIN * size), first + 1, whole)
        sides = -(-(last - first) // multiple) * multiple
        first = np.clip(first, 0, np.maximum(whole - sides, 0))
        width, height = (int(side) for side in sides)
        enlarge[:, 2] -= first
        window = np.stack([crop(frame, enlarge, (height, width), "replicate") for frame in frames])
        back = np.vstack([invert(enlarge), [0, 0, 1]])
        return cls(window, np.stack([m @ back for m in matrices]), size)

    def played(self, backwards: bool, mirrored: bool) -> "Region":
        """The region of the ground truth played backwards, or mirrored left to right, or both."""
        order = slice(None, None, -1 if backwards else 1)
        frames, matrices = self.frames[order], self.matrices[order]
        if mirrored:
            matrices = matrices * [[-1], [1]] + [[0, 0, self.size - 1], [0, 0, 0]]
        return replace(self, frames=np.ascontiguousarray(frames), matrices=matrices)

    def toned(self, gamma: np.ndarray) -> "Region":
        """The region with the tones of :func:`tone_curves`."""
        return replace(self, frames=tone_curves(self.frames, gamma))

    def align(self, degraded: np.ndarray) -> np.ndarray:
        """Align the degraded region.

        Args:
            degraded: uint8 (T, h/n, w/n, 3), n being the scale of the degradation.

        Returns:
            uint8 (T, size/n, size/n, 3), on the grid of the ground truth reduced by n.
        """
        n = self.frames.shape[1] // degraded.shape[1]
        if self.size % n:
            raise UserError(f"VFHQ: size {self.size} is not divisible by {n}, the scale of the degradation")
        # A small pixel x has its centre at n·x + (n − 1)/2 of the large pixels, in both grids.
        shift = self.matrices[:, :, :2].sum(2) * (n - 1) / 2 + self.matrices[:, :, 2] - (n - 1) / 2
        small = np.concatenate([self.matrices[:, :, :2], shift[:, :, None] / n], axis=2)
        return np.stack([crop(f, m, self.size // n) for f, m in zip(degraded, small, strict=True)])
