"""The sizes that encoders and generator share."""

from dataclasses import dataclass

from keep.utils.errors import UserError
from keep.utils.ranges import Depth, Scale, Side, Width


@dataclass(frozen=True)
class Sizes:
    """Sizes of the feature maps of encoders and generator. The defaults are those of the released networks.

    Args:
        image_size: side of the square images in pixels.
        channels: channels of the largest feature maps; scale i has ``channels * ch_mult[i]``.
        ch_mult: channel multiplier of each scale, from the largest down; the side is halved from scale to scale.
        res_blocks: residual blocks at each scale.
        attn_resolutions: sides of the feature maps at which each residual block is followed by self-attention.
        latent_dim: channels of the latent code, the dimension of a code.
        norm_groups: groups of every GroupNorm. The last GroupNorm sets the mean of each group to zero. With as many
            groups as channels the network can hardly tint an image, so small networks need few groups.
        patch: side in image pixels of the square patch that is one position of the largest feature maps: the pixels of
            a patch become channels. All scales are sides of feature maps, from ``image_size / patch`` down. Flow and
            warping work at the image's size.

    Raises:
        UserError: the image cannot be divided by ``patch`` and then halved ``len(ch_mult) - 1`` times, or an entry of
            ``attn_resolutions`` is not a scale.
    """

    image_size: Side = 512
    channels: Width = 64
    ch_mult: tuple[Scale, ...] = (1, 2, 2, 4, 4, 8)
    res_blocks: Depth = 2
    attn_resolutions: tuple[Side, ...] = (16,)
    latent_dim: Width = 256
    norm_groups: Width = 32
    patch: Scale = 1

    def __post_init__(self) -> None:
        factor = self.patch * 2 ** (len(self.ch_mult) - 1)
        if not self.ch_mult or self.image_size % factor:
            patches = f" and patch {self.patch}" if self.patch > 1 else ""
            raise UserError(
                f"image_size {self.image_size} with {len(self.ch_mult)} entries in ch_mult{patches}: "
                f"the size must be a multiple of {factor}"
            )
        self.check_scales("attn_resolutions", self.attn_resolutions)

    @property
    def scales(self) -> list[int]:
        """Sides of the feature maps, from ``image_size / patch`` down to the latent code."""
        return [self.image_size // self.patch // 2**i for i in range(len(self.ch_mult))]

    @property
    def widths(self) -> dict[int, int]:
        """Scale → channels, from the largest scale down."""
        return {scale: self.channels * mult for scale, mult in zip(self.scales, self.ch_mult, strict=True)}

    def check_scales(self, name: str, chosen: tuple[int, ...]) -> None:
        """Raise UserError if an entry of the option ``name`` is not a scale."""
        wrong = [scale for scale in chosen if scale not in self.scales]
        if wrong:
            raise UserError(f"{name}: {wrong} are not scales of this network, which works at {self.scales}")
