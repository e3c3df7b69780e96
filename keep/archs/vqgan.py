"""Stage I: a quantised autoencoder of face images (supplement A.3; Esser et al. 2021, CodeFormer's sizes)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.archs.blocks import AttnBlock, Downsample, ResBlock, Upsample, conv3x3, group_norm
from keep.archs.sizes import Sizes
from keep.config.registry import ARCHS
from keep.utils.ranges import Side, Width

FuseFn = Callable[[int, Tensor], Tensor]


def to_patches(x: Tensor, patch: int) -> Tensor:
    """(N, 3, S, S) → (N, 3·patch², S / patch, S / patch)."""
    return F.pixel_unshuffle(x, patch) if patch > 1 else x


def from_patches(x: Tensor, patch: int) -> Tensor:
    """(N, 3·patch², s, s) → (N, 3, patch·s, patch·s): each pixel is the mean of a square of patch × patch drawn pixels.

    The mean removes patterns that repeat with the patches, which the losses hardly see (Sugawara et al. 2018).
    """
    if patch == 1:
        return x
    before, after = patch // 2, (patch - 1) // 2
    drawn = F.pad(F.pixel_shuffle(x, patch), (before, after, before, after), mode="replicate")
    return F.avg_pool2d(drawn, patch, stride=1)


@torch.no_grad()
def start_patches_even(conv: nn.Conv2d, patch: int) -> None:
    """Give the pixels of a patch equal initial weights, so that training starts without a grid (Aitken et al. 2017)."""
    for parameter in conv.parameters():
        of_first_pixel = parameter[:: patch**2]
        parameter.copy_(of_first_pixel.repeat_interleave(patch**2, dim=0))


def middle_blocks(width: int, groups: int) -> list[nn.Module]:
    """The blocks of encoder and generator at the size of the latent code."""
    return [ResBlock(width, width, groups), AttnBlock(width, groups), ResBlock(width, width, groups)]


@ARCHS.register()
class Encoder(nn.Module):
    """E_H: an image (N, 3, S, S) in [-1, 1] to its latent code (N, latent_dim, s, s), s = S / patch / 2^(scales - 1).

    Args:
        sizes: sizes of the feature maps.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.patch = sizes.patch
        width, groups = sizes.channels, sizes.norm_groups
        blocks: list[nn.Module] = [conv3x3(3 * sizes.patch**2, width)]
        self.feature_at: dict[int, int] = {}  # block index → scale: the last ResBlock of each scale
        for scale, channels in sizes.widths.items():
            if scale != sizes.scales[0]:
                blocks.append(Downsample(width))
            for i in range(sizes.res_blocks):
                blocks.append(ResBlock(width, channels, groups))
                width = channels
                if i == sizes.res_blocks - 1:
                    self.feature_at[len(blocks) - 1] = scale
                if scale in sizes.attn_resolutions:
                    blocks.append(AttnBlock(width, groups))
        blocks += middle_blocks(width, groups)
        blocks += [group_norm(width, groups), conv3x3(width, sizes.latent_dim)]
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
        sizes: sizes of the feature maps.
        feature_scales: sides of the feature maps to return.
    """

    def __init__(self, sizes: Sizes, feature_scales: tuple[Side, ...] = (16, 32, 64)) -> None:
        super().__init__(sizes)
        sizes.check_scales("feature_scales", feature_scales)
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
        sizes: sizes of the feature maps.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.patch = sizes.patch
        latent_size, groups = sizes.scales[-1], sizes.norm_groups
        width = sizes.widths[latent_size]
        blocks: list[nn.Module] = [conv3x3(sizes.latent_dim, width), *middle_blocks(width, groups)]
        self.fuse_at: dict[int, int] = {}  # block index → scale
        for scale, channels in reversed(sizes.widths.items()):
            if scale != latent_size:
                blocks.append(Upsample(width))
            # CFT and CFA act after the last ResBlock of the latent scale, and after the first of each larger scale.
            fuse_block = sizes.res_blocks - 1 if scale == latent_size else 0
            for i in range(sizes.res_blocks):
                blocks.append(ResBlock(width, channels, groups))
                width = channels
                if i == fuse_block:
                    self.fuse_at[len(blocks) - 1] = scale
                if scale in sizes.attn_resolutions:
                    blocks.append(AttnBlock(width, groups))
        last = conv3x3(width, 3 * sizes.patch**2)
        if sizes.patch > 1:
            start_patches_even(last, sizes.patch)
        self.blocks = nn.ModuleList([*blocks, group_norm(width, groups), last])

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the last convolution, where the adaptive GAN weight compares gradients (Esser et al. 2021)."""
        return self.blocks[-1].weight  # type: ignore[return-value]

    def forward(self, z_q: Tensor, fuse: FuseFn | None = None) -> Tensor:
        """Decode. ``fuse(scale, F_d)`` is called once a scale and returns the feature that replaces F_d."""
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
        codes = self.embedding.weight.detach().double()  # near ties need full precision, also under autocast and TF32
        with torch.autocast(z.device.type, enabled=False):
            tokens = z.detach().double().flatten(2).transpose(1, 2)
            # |z - c|² = |z|² - 2 z·c + |c|², and |z|² is the same for every code
            return (codes.square().sum(1) - 2 * tokens @ codes.T).argmin(-1)

    def lookup(self, indices: Tensor, h: int, w: int) -> Tensor:
        """Indices (N, h·w) → ẑ^q (N, dim, h, w)."""
        return self.embedding(indices).transpose(1, 2).unflatten(2, (h, w))


@dataclass
class VQGANOutput:
    """The output of :class:`VQGAN`, each (N, …).

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
        sizes: sizes of the feature maps.
        codebook_size: number of codes.
    """

    def __init__(self, sizes: Sizes, codebook_size: Width = 1024) -> None:
        super().__init__()
        self.encoder = Encoder(sizes)
        self.codebook = Codebook(codebook_size, sizes.latent_dim)
        self.generator = Generator(sizes)

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the generator's last convolution."""
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
