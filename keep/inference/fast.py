"""A faster copy of KEEP for inference: the same weights and, in float32, the same result.

What it does and what each measure brings is in docs/benchmark_inference.md; ``scripts/bench/inference.py`` measures it.
"""

import copy
import ctypes

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.archs.blocks import ResBlock, Upsample
from keep.archs.keep import KEEP
from keep.flow.gmflow import GMFlow, match
from keep.utils.errors import UserError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FRAMES_AT_ONCE = 8
"""Frames that E_L sees at once on a GPU. On a CPU a batch is no faster than one by one, and needs more memory."""

LARGE_IMAGE = 256 * 256
"""Pixels from which :class:`ChannelsLastGroupNorm` computes its own statistics."""
STRIP_ROWS = 4


def accelerate(
    net: KEEP,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    fuse_upsample: bool = True,
    compile: bool = False,
) -> KEEP:
    """A copy of ``net`` that restores faster; ``net`` itself is left as it is. For inference alone.

    In every copy the residual blocks work in place, E_L passes over a long clip in pieces, and GMFlow computes each
    frame's features once a clip and not once a pair. The copy's state dict does not fit ``net`` where upsampling is
    fused: load weights first.

    Args:
        net: the network, with its weights loaded.
        dtype: precision of the weights and of most of the arithmetic. In bfloat16 and float16 these stay float32: the
            flow estimator; the Kalman filter network, its update, and the last norm and convolution of the encoders,
            which make the codes it works on; the last layers of T_Q, so that the argmax over the codes has no ties by
            rounding; the generator's last norm and convolution, so that the image is not rounded to 8 bits. Input and
            output are float32.
        channels_last: store images and convolution weights with the channels innermost (the flow estimator's stay:
            it gains nothing).
        fuse_upsample: one transposed convolution in place of each nearest ×2 and 3×3 (:class:`FusedUpsample`).
        compile: ``torch.compile`` the sub-networks; the first clip then takes minutes.

    Raises:
        UserError: another dtype.
    """
    if dtype not in DTYPES:
        raise UserError(f"KEEP runs in {', '.join(str(d).removeprefix('torch.') for d in DTYPES)}; got {dtype}")
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    # Another class for the same attributes: only the way of computing differs.
    fast.__class__ = FastKEEP
    if isinstance(fast.flownet, GMFlow):
        fast.flownet.__class__ = ClipGMFlow
    parts = {name: part for name, part in fast.named_children() if name != "flownet"}
    for part in parts.values():
        for block in list(part.modules()):
            if type(block) is ResBlock:
                block.__class__ = InPlaceResBlock
            if fuse_upsample:
                _fuse_children(block)
    if dtype != torch.float32:
        _reduce_precision(fast, parts, dtype)
    if channels_last:
        for part in parts.values():
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for module in part.modules():
                if type(module) is nn.GroupNorm:
                    module.__class__ = ChannelsLastGroupNorm
    if compile:
        for name in ("lq_encoder", "hq_encoder", "kalman_filter", "code_transformer"):
            parts[name].compile(dynamic=False)
        fast.decode = torch.compile(fast.decode, dynamic=False)
    return fast


def keep_freed_memory(keep: bool = True) -> bool:
    """Let the C library keep memory that tensors free, for the next tensors, in place of returning it to the system.

    By default glibc maps every tensor above 32 MiB anew, and the kernel has to clear its pages at first use: at
    512×512 that is a quarter of a CPU run. The setting is the whole process's, so a program chooses it, not
    :func:`accelerate`; memory stays at its highest level until the end.

    Args:
        keep: False goes back to glibc's usual behaviour.

    Returns:
        whether it took effect: False where the C library is not glibc.
    """
    m_trim_threshold, m_mmap_threshold, m_mmap_max = -1, -3, -4  # malloc.h
    try:
        libc = ctypes.CDLL("libc.so.6")
        if keep:
            return bool(libc.mallopt(m_mmap_max, 0) and libc.mallopt(m_trim_threshold, 2**31 - 1))
        # The values that glibc arrives at by itself once large blocks have been freed.
        settings = ((m_mmap_max, 65536), (m_mmap_threshold, 32 << 20), (m_trim_threshold, 64 << 20))
        done = all([libc.mallopt(name, value) for name, value in settings])
        libc.malloc_trim(0)
        return done
    except (OSError, AttributeError):
        return False


class FusedUpsample(nn.Module):
    """Nearest ×2 and a 3×3 convolution as one 4×4 transposed convolution of stride 2: (N, C, H, W) → (N, C, 2H, 2W).

    Of the nine products that the convolution makes for an output pixel, several meet the same input pixel: four
    remain when their weights are added beforehand. The kernel is the flipped 3×3 convolved with ones(2, 2). It is the
    same function, borders included: zeros around the large image are zeros around the small one.
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
    """GroupNorm whose statistics stay exact for large channels-last images on a CPU: (N, C, H, W) → (N, C, H, W).

    There PyTorch 2.15 adds up a whole image term by term in float32: at 512×512 its result is 1e-4 to 1e-3 off, that of
    the other layout 1e-6 (measured). Here it does so for strips of a few rows; their means and variances are joined:
    5e-6.
    """

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
        # The strips' own result is of no use, but its memory is.
        out = out.permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)
        return torch.addcmul(shift, x, scale, out=out)


class InPlaceResBlock(ResBlock):
    """A :class:`ResBlock` that writes SiLU and the sum over tensors nobody else holds."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        return h.add_(self.conv_out(x) if hasattr(self, "conv_out") else x)


class ClipGMFlow(GMFlow):
    """:class:`GMFlow` with a second entrance for clips, which computes the features of each frame once."""

    @torch.no_grad()
    def clip(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) → the flow of every frame but the first to the one before it, (B, T - 1, 2, H, W)."""
        with torch.autocast(frames.device.type, enabled=False):
            frames = frames.to(self.backbone.conv1.weight.dtype)
            previous = self._features(frames[:, 0])
            flows = []
            for frame in frames[:, 1:].unbind(1):
                current = self._features(frame)
                f1, f2 = self.transformer(torch.cat([current, previous])).chunk(2)
                flows.append(self._upsample(self.feature_flow_attn(f1, match(f1, f2)), f1))
                previous = current
            return torch.stack(flows, dim=1)

    def _features(self, frame: Tensor) -> Tensor:
        return self.backbone(((frame + 1) / 2 - self.mean) / self.std)


class FastKEEP(KEEP):
    """:class:`KEEP` that does over a clip's length what memory and the flow estimator like best."""

    def observe(self, lq: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        pieces = [super(FastKEEP, self).observe(piece) for piece in lq.split(_frames_at_once(lq), dim=1)]
        if len(pieces) == 1:
            return pieces[0]
        scales = pieces[0][1].keys()
        return torch.cat([z for z, _ in pieces], dim=1), {s: torch.cat([f[s] for _, f in pieces], 1) for s in scales}

    @torch.no_grad()
    def estimate_flows(self, lq: Tensor) -> Tensor:
        # One pair has nothing to share, and GMFlow itself tells of sizes it cannot do.
        if isinstance(self.flownet, ClipGMFlow) and lq.shape[1] > 2 and self.image_size % 16 == 0:
            return self.flownet.clip(lq)
        return super().estimate_flows(lq)


def _frames_at_once(lq: Tensor) -> int:
    return 1 if lq.device.type == "cpu" else FRAMES_AT_ONCE


def _fuse_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, Upsample):
            setattr(module, name, FusedUpsample(child))


def _reduce_precision(fast: KEEP, parts: dict[str, nn.Module], dtype: torch.dtype) -> None:
    for part in parts.values():
        part.to(dtype)
    fast.kalman_filter.float()
    for encoder in (fast.lq_encoder, fast.hq_encoder):
        encoder.register_forward_pre_hook(_to_weights)
        _leave_in_float32(*encoder.blocks[-2:])
    fast.code_transformer.register_forward_pre_hook(_to_weights)
    _leave_in_float32(fast.code_transformer.idx_pred_layer)
    _leave_in_float32(*fast.generator.blocks[-2:])


def _leave_in_float32(first: nn.Module, *others: nn.Module) -> None:
    """These modules end a sub-network: what enters the first is float32 from there on."""
    first.register_forward_pre_hook(_to_float32)
    for module in (first, *others):
        module.float()


def _to_float32(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0].float(),)


def _to_weights(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0].to(next(module.parameters()).dtype),)
