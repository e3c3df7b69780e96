"""A faster copy of KEEP for inference: the same weights and, in float32, the same result up to rounding.

docs/benchmark_inference.md compares it with the plain network; ``scripts/bench/inference.py`` measures both.
"""

import copy
import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.archs.blocks import ResBlock, Upsample
from keep.archs.keep import KEEP
from keep.flow.gmflow import GMFlow
from keep.utils.dtypes import parse_dtype

FRAMES_AT_ONCE = 8
"""Frames in one batch of E_L on a GPU. On a CPU, a batch is no faster than single frames and needs more memory."""

LARGE_IMAGE = 256 * 256
"""Pixels from which :class:`ChannelsLastGroupNorm` computes its own statistics."""
STRIP_ROWS = 4


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
            flow estimator; the Kalman filter network, its update, and the last norm and convolution of the encoders,
            which compute the codes it works on; the last layers of T_Q, so that rounding causes no ties in the argmax
            over codes; the generator's last norm and convolution, so that the image is not rounded to 8 bits. Input
            and output are float32.
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
        _keep_float32_parts(fast)
    if compile:
        for part in (fast.lq_encoder, fast.hq_encoder, fast.kalman_filter, fast.code_transformer):
            part.compile(dynamic=False)
    return fast


def replace_modules(module: nn.Module, replacements: Mapping[type, Callable[[Any], nn.Module]]) -> None:
    """Replace submodules, innermost first.

    Args:
        module: its submodules are replaced, not the module itself.
        replacements: exact type → a function that builds the new module from the old one.
    """
    for name, child in list(module.named_children()):
        replace_modules(child, replacements)
        if build := replacements.get(type(child)):
            setattr(module, name, build(child))


def keep_freed_memory(keep: bool = True) -> bool:
    """Let the C library reuse freed memory for the next tensors instead of returning it to the system.

    By default, glibc maps every tensor above 32 MiB anew, and the kernel clears its pages at first use: at 512×512 this
    takes a quarter of a CPU run. The setting applies to the process, so a program chooses it, not :func:`accelerate`.
    Memory use stays at its peak until the process ends.

    Args:
        keep: False restores glibc's default.

    Returns:
        whether the setting took effect: False if the C library is not glibc.
    """
    m_trim_threshold, m_mmap_threshold, m_mmap_max = -1, -3, -4  # malloc.h
    try:
        libc = ctypes.CDLL("libc.so.6")
        if keep:
            return bool(libc.mallopt(m_mmap_max, 0) and libc.mallopt(m_trim_threshold, 2**31 - 1))
        # The values that glibc adapts to once large blocks have been freed.
        settings = ((m_mmap_max, 65536), (m_mmap_threshold, 32 << 20), (m_trim_threshold, 64 << 20))
        done = all([libc.mallopt(name, value) for name, value in settings])
        libc.malloc_trim(0)
        return done
    except (OSError, AttributeError):
        return False


class FusedUpsample(nn.Module):
    """Nearest ×2 and a 3×3 convolution as one 4×4 transposed convolution of stride 2: (N, C, H, W) → (N, C, 2H, 2W).

    The nine products of an output pixel read only four different input pixels, so their weights are added beforehand:
    the kernel is the flipped 3×3 convolved with ones(2, 2). The function is the same, borders included: zeros around
    the large image are zeros around the small one.

    Args:
        upsample: the module to replace.
    """

    def __init__(self, upsample: Upsample) -> None:
        super().__init__()
        weight = upsample.conv.weight.detach()
        c_out, c_in = weight.shape[:2]
        flipped = weight.flip(2, 3).transpose(0, 1).reshape(c_in * c_out, 1, 3, 3)
        kernel = F.conv2d(flipped, flipped.new_ones(1, 1, 2, 2), padding=1).view(c_in, c_out, 4, 4)
        self.conv = nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, device=weight.device, dtype=weight.dtype)
        assert self.conv.bias is not None
        assert upsample.conv.bias is not None
        with torch.no_grad():
            self.conv.weight.copy_(kernel)
            self.conv.bias.copy_(upsample.conv.bias)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ChannelsLastGroupNorm(nn.GroupNorm):
    """GroupNorm with accurate statistics for large channels-last images on a CPU: (N, C, H, W) → (N, C, H, W).

    PyTorch 2.15 sums such an image term by term in float32: at 512×512 the error is 1e-4 to 1e-3; in the other layout
    it is 1e-6 (measured). This module sums strips of a few rows, then combines their means and variances: 5e-6.

    Args:
        norm: the norm to replace; the weights are shared.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        large = h * w >= LARGE_IMAGE and h % STRIP_ROWS == 0
        if x.device.type != "cpu" or x.dtype != torch.float32 or not large:
            return super().forward(x)
        strips = x.permute(0, 2, 3, 1).reshape(-1, STRIP_ROWS, w, c).permute(0, 3, 1, 2)
        tiny = 1e-12
        out, means, inverses = torch.native_group_norm(
            strips, None, None, strips.shape[0], c, STRIP_ROWS * w, self.num_groups, tiny
        )
        means, variances = (v.view(n, -1, self.num_groups).double() for v in (means, inverses**-2 - tiny))
        mean = means.mean(1)
        variance = variances.mean(1) + means.var(1, correction=0)
        # (x - mean) / deviation · weight + bias = x · scale + shift
        scale = (variance + self.eps).rsqrt()[:, :, None] * self.weight.view(self.num_groups, -1)
        shift = self.bias.view(self.num_groups, -1) - mean[:, :, None] * scale
        scale, shift = (v.float().reshape(n, c, 1, 1) for v in (scale, shift))
        # The normalised strips are not needed; their memory is reused.
        out = out.permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)
        return torch.addcmul(shift, x, scale, out=out)


class InPlaceResBlock(nn.Module):
    """A :class:`ResBlock` that writes SiLU and the sum into tensors with no other reference.

    Args:
        block: the block to replace; the weights are shared.
    """

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.norm2, self.conv2 = block.norm2, block.conv2
        if hasattr(block, "conv_out"):
            self.conv_out = block.conv_out

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        return h.add_(self.conv_out(x) if hasattr(self, "conv_out") else x)


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
        frames = 1 if lq.device.type == "cpu" else FRAMES_AT_ONCE
        pieces = [super(FastKEEP, self).observe(piece) for piece in lq.split(frames, dim=1)]
        if len(pieces) == 1:
            return pieces[0]
        scales = pieces[0][1].keys()
        return torch.cat([z for z, _ in pieces], dim=1), {s: torch.cat([f[s] for _, f in pieces], 1) for s in scales}

    @torch.no_grad()
    def estimate_flows(self, lq: Tensor) -> Tensor:
        # A single pair has nothing to share; for other sizes, GMFlow raises its own error.
        if isinstance(self.flownet, GMFlow) and lq.shape[1] > 2 and self.image_size % 16 == 0:
            return self.flownet.clip(lq)
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


def _keep_float32_parts(fast: KEEP) -> None:
    """Return the parts that need float32 to it, and convert the tensors at their borders."""
    fast.kalman_filter.float()
    for encoder in (fast.lq_encoder, fast.hq_encoder):
        encoder.register_forward_pre_hook(_to_weight_dtype)
        _end_in_float32(*encoder.blocks[-2:])
    fast.code_transformer.register_forward_pre_hook(_to_weight_dtype)
    _end_in_float32(fast.code_transformer.idx_pred_layer)
    _end_in_float32(*fast.generator.blocks[-2:])


def _end_in_float32(first: nn.Module, *others: nn.Module) -> None:
    """Run the last modules of a sub-network in float32: the input of the first is converted."""
    first.register_forward_pre_hook(_to_float32)
    for module in (first, *others):
        module.float()


def _to_float32(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0].float(),)


def _to_weight_dtype(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0].to(next(module.parameters()).dtype),)
