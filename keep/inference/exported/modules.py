"""The network as it is exported: the precision of :func:`keep.inference.fast.accelerate`, and parts that ONNX has."""

from copy import deepcopy

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.archs.blocks import AttnBlock, to_map, to_tokens
from keep.archs.keep import KEEP
from keep.inference.fast import accelerate
from keep.inference.fast.modules import replace_modules


class HeadedAttnBlock(nn.Module):
    """:class:`AttnBlock` with a dimension for its single head: ONNX has attention for four dimensions only.

    Args:
        block: the block to replace; the weights are shared.
    """

    def __init__(self, block: AttnBlock) -> None:
        super().__init__()
        self.norm, self.q, self.k, self.v, self.proj_out = block.norm, block.q, block.k, block.v, block.proj_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (to_tokens(f(y))[:, None] for f in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.proj_out(to_map(h, *x.shape[-2:]))


def exportable(net: KEEP, dtype: torch.dtype | str = torch.float32) -> KEEP:
    """A copy of ``net`` on the CPU whose step can be exported, in evaluation mode.

    Args:
        net: the network.
        dtype: float32 or float16; the same parts stay float32 as in :func:`keep.inference.fast.accelerate`.
    """
    copy = accelerate(deepcopy(net).cpu(), dtype, channels_last=False, fuse_upsample=False)
    replace_modules(copy, {AttnBlock: HeadedAttnBlock})
    return copy.eval().requires_grad_(False)
