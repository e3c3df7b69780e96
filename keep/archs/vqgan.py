"""Stage I: a quantised autoencoder of face images (supplement A.3; Esser et al. 2021, CodeFormer's sizes)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from keep.archs.blocks import AttnBlock, Downsample, ResBlock, Upsample, conv3x3, group_norm
from keep.config.registry import ARCHS
from keep.utils.errors import UserError

FuseFn = Callable[[int, Tensor], Tensor]


def scales_of(image_size: int, ch_mult: tuple[int, ...], patch: int = 1) -> list[int]:
    """The side lengths of the network's feature maps, from ``image_size / patch`` down to the latent.

    Raises:
        UserError: the image cannot be divided by ``patch`` and then halved ``len(ch_mult) - 1`` times.
    """
    factor = patch * 2 ** (len(ch_mult) - 1)
    if not ch_mult or image_size % factor:
        patches = f" and patch {patch}" if patch > 1 else ""
        raise UserError(
            f"image_size {image_size} with {len(ch_mult)} entries in ch_mult{patches}: "
            f"the size must be a multiple of {factor}"
        )
    return [image_size // patch // 2**i for i in range(len(ch_mult))]


def check_scales(name: str, scales: tuple[int, ...], known: list[int]) -> None:
    """Raises UserError when an entry of ``scales`` is not a resolution of the network."""
    wrong = [s for s in scales if s not in known]
    if wrong:
        raise UserError(f"{name}: {wrong} are no resolutions of this network, which works at {known}")


def to_patches(x: Tensor, patch: int) -> Tensor:
    """(N, 3, S, S) → (N, 3·patch², S / patch, S / patch)."""
    return F.pixel_unshuffle(x, patch) if patch > 1 else x


def from_patches(x: Tensor, patch: int) -> Tensor:
    """The reverse of :func:`to_patches`."""
    return F.pixel_shuffle(x, patch) if patch > 1 else x


def middle_blocks(width: int, groups: int) -> list[nn.Module]:
    """What encoder and generator have at the latent's size."""
    return [ResBlock(width, width, groups), AttnBlock(width, groups), ResBlock(width, width, groups)]


@ARCHS.register()
class Encoder(nn.Module):
    """E_H: an image (N, 3, S, S) in [-1, 1] to its latent code (N, latent_dim, s, s), s = S / patch / 2^(scales - 1).

    Args:
        image_size: side of the square input in pixels.
        channels: channels of the largest feature maps; scale i has ``channels * ch_mult[i]``.
        ch_mult: channel multiplier of each scale, from the largest down; one halving between two scales.
        res_blocks: residual blocks at each scale.
        attn_resolutions: side lengths of the feature maps at which each residual block is followed by self-attention.
        latent_dim: channels of the latent code.
        norm_groups: groups of every GroupNorm (see :class:`VQGAN`).
        patch: side of the square of image pixels that is one position of the largest map (see :class:`VQGAN`).
    """

    def __init__(
        self,
        image_size: PositiveInt = 512,
        channels: PositiveInt = 64,
        ch_mult: tuple[PositiveInt, ...] = (1, 2, 2, 4, 4, 8),
        res_blocks: PositiveInt = 2,
        attn_resolutions: tuple[PositiveInt, ...] = (16,),
        latent_dim: PositiveInt = 256,
        norm_groups: PositiveInt = 32,
        patch: PositiveInt = 1,
    ) -> None:
        super().__init__()
        scales = scales_of(image_size, ch_mult, patch)
        check_scales("attn_resolutions", attn_resolutions, scales)
        self.patch = patch
        blocks: list[nn.Module] = [conv3x3(3 * patch**2, channels)]
        width = channels
        self.feature_at: dict[int, int] = {}  # block index → scale: the last ResBlock of each scale
        for scale, mult in zip(scales, ch_mult, strict=True):
            if scale != scales[0]:
                blocks.append(Downsample(width))
            for i in range(res_blocks):
                blocks.append(ResBlock(width, channels * mult, norm_groups))
                width = channels * mult
                if i == res_blocks - 1:
                    self.feature_at[len(blocks) - 1] = scale
                if scale in attn_resolutions:
                    blocks.append(AttnBlock(width, norm_groups))
        blocks += middle_blocks(width, norm_groups)
        blocks += [group_norm(width, norm_groups), conv3x3(width, latent_dim)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = to_patches(x, self.patch)
        for block in self.blocks:
            x = block(x)
        return x


@ARCHS.register()
class LQEncoder(Encoder):
    """E_L: an :class:`Encoder` that also returns the features F_e which CFT reads.

    Args:
        image_size: side of the square input in pixels.
        channels: channels of the largest feature maps; scale i has ``channels * ch_mult[i]``.
        ch_mult: channel multiplier of each scale, from the largest down; one halving between two scales.
        res_blocks: residual blocks at each scale.
        attn_resolutions: side lengths of the feature maps at which each residual block is followed by self-attention.
        latent_dim: channels of the latent code.
        norm_groups: groups of every GroupNorm (see :class:`VQGAN`).
        patch: side of the square of image pixels that is one position of the largest map (see :class:`VQGAN`).
        feature_scales: side lengths of the feature maps to return.
    """

    def __init__(
        self,
        image_size: PositiveInt = 512,
        channels: PositiveInt = 64,
        ch_mult: tuple[PositiveInt, ...] = (1, 2, 2, 4, 4, 8),
        res_blocks: PositiveInt = 2,
        attn_resolutions: tuple[PositiveInt, ...] = (16,),
        latent_dim: PositiveInt = 256,
        norm_groups: PositiveInt = 32,
        patch: PositiveInt = 1,
        feature_scales: tuple[PositiveInt, ...] = (16, 32, 64),
    ) -> None:
        super().__init__(image_size, channels, ch_mult, res_blocks, attn_resolutions, latent_dim, norm_groups, patch)
        check_scales("feature_scales", feature_scales, scales_of(image_size, ch_mult, patch))
        self.feature_scales = feature_scales

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """(N, 3, S, S) → z̃ (N, latent_dim, s, s) and F_e: scale → (N, C, scale, scale)."""
        features = {}
        x = to_patches(x, self.patch)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.feature_at.get(i) in self.feature_scales:
                features[self.feature_at[i]] = x
        return x, features


@ARCHS.register()
class Generator(nn.Module):
    """The decoder D: a quantised code (N, latent_dim, s, s) to an image (N, 3, S, S) in about [-1, 1].

    Args:
        image_size: side of the square output in pixels.
        channels: channels of the largest feature maps; scale i has ``channels * ch_mult[i]``.
        ch_mult: channel multiplier of each scale, from the largest down; one doubling between two scales.
        res_blocks: residual blocks at each scale.
        attn_resolutions: side lengths of the feature maps at which each residual block is followed by self-attention.
        latent_dim: channels of the latent code.
        norm_groups: groups of every GroupNorm (see :class:`VQGAN`).
        patch: side of the square of image pixels that is one position of the largest map (see :class:`VQGAN`).
    """

    def __init__(
        self,
        image_size: PositiveInt = 512,
        channels: PositiveInt = 64,
        ch_mult: tuple[PositiveInt, ...] = (1, 2, 2, 4, 4, 8),
        res_blocks: PositiveInt = 2,
        attn_resolutions: tuple[PositiveInt, ...] = (16,),
        latent_dim: PositiveInt = 256,
        norm_groups: PositiveInt = 32,
        patch: PositiveInt = 1,
    ) -> None:
        super().__init__()
        scales = scales_of(image_size, ch_mult, patch)
        check_scales("attn_resolutions", attn_resolutions, scales)
        self.patch = patch
        width = channels * ch_mult[-1]
        blocks: list[nn.Module] = [conv3x3(latent_dim, width)]
        blocks += middle_blocks(width, norm_groups)
        self.fuse_at: dict[int, int] = {}  # block index → scale
        for scale, mult in zip(reversed(scales), reversed(ch_mult), strict=True):
            if scale != scales[-1]:
                blocks.append(Upsample(width))
            # CFT and CFA act after the last ResBlock of the latent scale, after the first of every larger one.
            fuse_block = res_blocks - 1 if scale == scales[-1] else 0
            for i in range(res_blocks):
                blocks.append(ResBlock(width, channels * mult, norm_groups))
                width = channels * mult
                if i == fuse_block:
                    self.fuse_at[len(blocks) - 1] = scale
                if scale in attn_resolutions:
                    blocks.append(AttnBlock(width, norm_groups))
        self.blocks = nn.ModuleList([*blocks, group_norm(width, norm_groups), conv3x3(width, 3 * patch**2)])

    @property
    def last_layer(self) -> nn.Parameter:
        """The last convolution's weight, at which the adaptive GAN weight compares gradients (Esser et al. 2021)."""
        return self.blocks[-1].weight  # type: ignore[return-value]

    def forward(self, z_q: Tensor, fuse: FuseFn | None = None) -> Tensor:
        """Decode; ``fuse(scale, F_d)``, called once a scale, returns what takes the place of the feature F_d."""
        x = z_q
        for i, block in enumerate(self.blocks):
            x = block(x)
            if fuse is not None and i in self.fuse_at:
                x = fuse(self.fuse_at[i], x)
        return from_patches(x, self.patch)


class Codebook(nn.Module):
    """The codes C = {c_k}, k < size, of dimension dim, with nearest-neighbour matching (supplement A.3)."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, dim)
        nn.init.uniform_(self.embedding.weight, -1 / size, 1 / size)  # van den Oord et al. 2017, as in VQGAN

    def nearest(self, z: Tensor) -> Tensor:
        """Index of the nearest code of every token: (N, dim, h, w) → (N, h·w), int64."""
        codes = self.embedding.weight.detach().double()  # near ties need full precision, whatever autocast and TF32 say
        with torch.autocast(z.device.type, enabled=False):
            tokens = z.detach().double().flatten(2).transpose(1, 2)
            # |z - c|² = |z|² - 2 z·c + |c|², and |z|² is the same for every code
            return (codes.square().sum(1) - 2 * tokens @ codes.T).argmin(-1)

    def lookup(self, indices: Tensor, h: int, w: int) -> Tensor:
        """Indices (N, h·w) → ẑ^q (N, dim, h, w)."""
        return self.embedding(indices).transpose(1, 2).unflatten(2, (h, w))


@dataclass
class VQGANOutput:
    """What :class:`VQGAN` returns, (N, …).

    ``z_q`` is differentiable in the codebook, not in ``z`` (the codebook terms of eq. (3) need both);
    ``reconstruction`` is differentiable in the encoder through the straight-through estimator.
    """

    reconstruction: Tensor
    z: Tensor
    z_q: Tensor
    codes: Tensor


@ARCHS.register()
class VQGAN(nn.Module):
    """The quantised autoencoder of stage I: encoder E_H, codebook, generator D.

    Args:
        image_size: side of the square images in pixels.
        channels: channels of the largest feature maps; scale i has ``channels * ch_mult[i]``.
        ch_mult: channel multiplier of each scale, from the largest down; one halving between two scales.
        res_blocks: residual blocks at each scale.
        attn_resolutions: side lengths of the feature maps at which each residual block is followed by self-attention.
        latent_dim: dimension of a code.
        codebook_size: number of codes.
        norm_groups: groups of every GroupNorm. The last one sets the mean of its groups to zero, so with as many
            groups as channels the network can hardly tint an image: small networks want few groups.
        patch: side in image pixels of the square that becomes one position, its pixels channels, before the first
            convolution and behind the generator's last. All scales are sides of feature maps: the largest is
            ``image_size / patch``.
    """

    def __init__(
        self,
        image_size: PositiveInt = 512,
        channels: PositiveInt = 64,
        ch_mult: tuple[PositiveInt, ...] = (1, 2, 2, 4, 4, 8),
        res_blocks: PositiveInt = 2,
        attn_resolutions: tuple[PositiveInt, ...] = (16,),
        latent_dim: PositiveInt = 256,
        codebook_size: PositiveInt = 1024,
        norm_groups: PositiveInt = 32,
        patch: PositiveInt = 1,
    ) -> None:
        super().__init__()
        sizes = (image_size, channels, ch_mult, res_blocks, attn_resolutions, latent_dim, norm_groups, patch)
        self.encoder = Encoder(*sizes)
        self.codebook = Codebook(codebook_size, latent_dim)
        self.generator = Generator(*sizes)

    @property
    def last_layer(self) -> nn.Parameter:
        """The generator's."""
        return self.generator.last_layer

    def encode(self, x: Tensor) -> Tensor:
        """Image (N, 3, S, S) in [-1, 1] → z (N, latent_dim, s, s)."""
        return self.encoder(x)

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z → the nearest codes ẑ^q of the same shape, and their indices (N, s·s)."""
        codes = self.codebook.nearest(z)
        return self.codebook.lookup(codes, *z.shape[-2:]), codes

    def decode(self, z_q: Tensor) -> Tensor:
        """ẑ^q (N, latent_dim, s, s) → image (N, 3, S, S)."""
        return self.generator(z_q)

    def forward(self, x: Tensor) -> VQGANOutput:
        z = self.encode(x)
        z_q, codes = self.quantize(z)
        straight_through = z + (z_q - z).detach()
        return VQGANOutput(self.decode(straight_through), z, z_q, codes)
