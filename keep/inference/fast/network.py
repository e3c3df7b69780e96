"""The accelerated network: which parts of KEEP are replaced, and in which precision and layout each runs."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from keep.archs.blocks import ResBlock, Upsample
from keep.archs.keep import KEEP
from keep.flow.gmflow import GMFlow
from keep.inference.fast.modules import ChannelsLastGroupNorm, FusedUpsample, InPlaceResBlock, replace_modules
from keep.inference.fast.precision import keep_float32_parts, reduce_flow
from keep.utils.dtypes import parse_dtype

FRAMES_AT_ONCE = 8
"""Frames of every clip in one batch of E_L and of the flow on a GPU. On a CPU, a batch is no faster than single
frames and needs more memory."""


def accelerate(
    net: KEEP,
    dtype: torch.dtype | str = torch.float32,
    channels_last: bool = True,
    fuse_upsample: bool = True,
    compile: bool = False,
) -> KEEP:
    """A copy of ``net`` that restores faster, for inference only. ``net`` itself does not change.

    In every copy, residual blocks work in place, E_L processes a long clip in pieces, and GMFlow computes the features
    of each frame once instead of once per pair. With fused upsampling, the state dict of the copy does not fit
    ``net``: load weights first.

    Args:
        net: the network, with its weights loaded.
        dtype: precision of weights and of most arithmetic. In bfloat16 and float16 these parts stay float32: the
            flow estimator, except GMFlow's features in bfloat16; the Kalman filter network, its update, and the last
            norm and convolution of the encoders, which compute the codes it works on; the last layers of T_Q, so that
            rounding causes no ties in the argmax over codes; the generator's last norm and convolution, so that the
            image is not rounded to 8 bits. Input and output are float32.
        channels_last: store images and convolution weights with the channels innermost. The flow estimator is
            excluded: it does not get faster.
        fuse_upsample: replace each nearest ×2 and 3×3 convolution by one transposed convolution
            (:class:`FusedUpsample`).
        compile: ``torch.compile`` the sub-networks. The first clip then takes minutes.

    Raises:
        UserError: an unknown dtype.
    """
    dtype = parse_dtype(dtype)
    fast = FastKEEP(copy.deepcopy(net), compile).eval().requires_grad_(False)
    parts = [part for name, part in fast.named_children() if name != "flownet"]
    replacements: dict[type, Callable[[Any], nn.Module]] = {ResBlock: InPlaceResBlock}
    if fuse_upsample:
        replacements[Upsample] = FusedUpsample
    if channels_last:
        replacements[nn.GroupNorm] = ChannelsLastGroupNorm
    for part in parts:
        replace_modules(part, replacements)
        if dtype != torch.float32:
            part.to(dtype)
        if channels_last:
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if dtype != torch.float32:
        keep_float32_parts(fast)
        reduce_flow(fast, dtype)
    if compile:
        for part in (fast.lq_encoder, fast.hq_encoder, fast.kalman_filter, fast.code_transformer):
            part.compile(dynamic=False)
    return fast


class FastKEEP(KEEP):
    """:class:`KEEP` that limits the memory of E_L over long clips and shares GMFlow's features between pairs.

    Args:
        net: the network; its parts are shared.
        compile: ``torch.compile`` the decoder.
    """

    def __init__(self, net: KEEP, compile: bool = False) -> None:
        nn.Module.__init__(self)  # not KEEP's, which would build new parts
        for name, value in vars(net).items():
            if not name.startswith("_"):
                setattr(self, name, value)
        for name, part in net.named_children():
            setattr(self, name, part)
        self._compiled_decode = torch.compile(super().decode, dynamic=False) if compile else None

    def observe(self, lq: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        pieces = [super(FastKEEP, self).observe(piece) for piece in lq.split(self._frames_at_once(lq), dim=1)]
        if len(pieces) == 1:
            return pieces[0]
        scales = pieces[0][1].keys()
        return torch.cat([z for z, _ in pieces], dim=1), {s: torch.cat([f[s] for _, f in pieces], 1) for s in scales}

    @staticmethod
    def _frames_at_once(lq: Tensor) -> int:
        return 1 if lq.device.type == "cpu" else FRAMES_AT_ONCE

    @torch.no_grad()
    def estimate_flows(self, lq: Tensor) -> Tensor:
        # A single pair has nothing to share; for other sizes, GMFlow raises its own error.
        if isinstance(self.flownet, GMFlow) and lq.shape[1] > 2 and self.image_size % 16 == 0:
            return self.flownet.clip(lq, self._frames_at_once(lq))
        return super().estimate_flows(lq)

    def decode(
        self,
        z_q: Tensor,
        features: dict[int, Tensor] | None,
        memory: dict[int, Tensor],
        *,
        w: float = 1.0,
        use_cfa: bool = True,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        decode = self._compiled_decode or super().decode
        return decode(z_q, features, memory, w=w, use_cfa=use_cfa)
