"""A loss on the embedding of a face recognition network: the output should be the same person."""

import math
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keep.config.registry import IDENTITIES, LOSSES
from keep.faces.align import TEMPLATE_512, invert, scale_of, similarity
from keep.utils.ranges import Weight


@LOSSES.register()
class FaceIdentity(nn.Module):
    """1 − cosine of the face embeddings of output and target, mean over frames.

    The identity-preserving loss of GFPGAN (Wang et al., CVPR 2021), there with ArcFace and the L1 distance. The crop
    has a fixed position: frames need FFHQ's framing. A network that trains must not score: measure IDS with another.

    Args:
        network: the face recognition network: ``ArcFace``, or ``ONNXIdentity`` with the package onnx2torch.
        weight: factor of this term in the total.
    """

    def __init__(self, network: Annotated[Any, IDENTITIES], weight: Weight = 1.0) -> None:
        super().__init__()
        self.net = network.differentiable()
        self.files = network.files
        self.size, self.template = network.size, network.template
        self.weight = weight

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """(N, 3, S, S) or (B, T, 3, S, S) RGB in [-1, 1], twice → scalar in [0, 2]."""
        made = self.net(self.crops(output))
        with torch.no_grad():
            true = self.net(self.crops(target))
        return (1 - F.cosine_similarity(made.float(), true.float(), dim=1)).mean()

    def crops(self, frames: Tensor) -> Tensor:
        """Aligned faces (…, 3, S, S) → the network's crops (N, 3, h, w): :func:`keep.faces.align.crop` of one place."""
        frames = frames.float().flatten(0, -4)
        side, (height, width) = frames.shape[-1], self.size
        matrix = similarity(TEMPLATE_512 * side / 512, template=self.template)
        k = max(1, math.ceil(1 / scale_of(matrix) - 0.25))
        dense = k * matrix
        dense[:, 2] += (k - 1) / 2
        x, y = np.meshgrid(np.arange(k * width), np.arange(k * height))
        places = np.stack([x, y], -1) @ invert(dense)[:, :2].T + invert(dense)[:, 2]
        grid = torch.from_numpy((2 * places + 1) / side - 1).to(frames)
        big = F.grid_sample(
            frames, grid.expand(len(frames), -1, -1, -1), "bicubic", padding_mode="border", align_corners=False
        )
        return F.avg_pool2d(big, k)
