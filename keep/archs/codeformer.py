"""CodeFormer (Zhou et al., NeurIPS 2022, arXiv 2206.11253): faces drawn from a codebook, frame by frame."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from keep.archs.cft import CFT
from keep.archs.code_transformer import CodeTransformer
from keep.archs.public import from_public
from keep.archs.sizes import Sizes
from keep.archs.vqgan import Codebook, Generator, LQEncoder
from keep.config.registry import ARCHS
from keep.utils.errors import UserError
from keep.utils.ranges import Depth, Side, Width


@dataclass
class CodeFormerOutput:
    """Shapes (B, T, …), or (N, …) for images.

    Attributes:
        output: the restored frames (…, 3, S, S), in about [-1, 1], not clamped.
        z: the encoder's latent codes (…, C, h, w).
        logits: T_Q's prediction (…, h·w, K).
        codes: their argmax (…, h·w).
    """

    output: Tensor
    z: Tensor
    logits: Tensor
    codes: Tensor


@ARCHS.register()
class CodeFormer(nn.Module):
    """CodeFormer: LQ encoder, code transformer T_Q, codebook, and generator with CFT.

    The parts have the names that they have in KEEP: a file of CodeFormer's authors is renamed by
    :func:`keep.archs.public.from_public`. The defaults are the released sizes (94.11 M parameters).

    Args:
        sizes: sizes of the feature maps of encoder and generator.
        codebook_size: number of codes.
        transformer_width: width of T_Q.
        transformer_heads: attention heads of T_Q.
        transformer_layers: layers of T_Q.
        transformer_mlp_width: inner width of T_Q's MLPs.
        cft_scales: sides of the feature maps at which CFT acts in the generator.
    """

    scale = 1
    """Side of the output / side of the input: LQ frames are upsampled first."""
    future_frames = 0
    """Frames after a frame that its restoration needs."""

    def __init__(
        self,
        sizes: Sizes,
        codebook_size: Width = 1024,
        transformer_width: Width = 512,
        transformer_heads: Depth = 8,
        transformer_layers: Depth = 9,
        transformer_mlp_width: Width = 1024,
        cft_scales: tuple[Side, ...] = (32, 64, 128, 256),
    ) -> None:
        super().__init__()
        sizes.check_scales("cft_scales", cft_scales)
        self.image_size = sizes.image_size
        self.lq_encoder = LQEncoder(sizes, feature_scales=cft_scales)
        self.code_transformer = CodeTransformer(
            tokens=sizes.scales[-1] ** 2,
            latent_dim=sizes.latent_dim,
            codebook_size=codebook_size,
            width=transformer_width,
            heads=transformer_heads,
            layers=transformer_layers,
            mlp_width=transformer_mlp_width,
        )
        self.codebook = Codebook(codebook_size, sizes.latent_dim)
        self.generator = Generator(sizes)
        self.cft = nn.ModuleDict({str(s): CFT(sizes.widths[s], sizes.norm_groups) for s in cft_scales})

    def forward(
        self, lq: Tensor, w: float = 1.0, *, adain: bool = False, return_states: bool = False
    ) -> Tensor | CodeFormerOutput:
        """Restore each frame by itself.

        The argmax over codes passes no gradient: losses of the output train generator, CFT and, through the features
        that CFT reads, the encoder; T_Q learns from the logits.

        Args:
            lq: frames upsampled to the output's size, (B, T, 3, S, S) or (N, 3, S, S), in [-1, 1].
            w: fidelity weight of CFT, 0 to 1; at 0 CFT is skipped.
            adain: give the quantised code the mean and deviation of the encoder's, channel by channel, as the
                authors' script for images does.
            return_states: return a :class:`CodeFormerOutput` instead of only the output.

        Returns:
            the restored frames, of the shape of ``lq``, in about [-1, 1].

        Raises:
            UserError: frames of another size.
        """
        size = self.image_size
        if lq.dim() not in (4, 5) or lq.shape[-3:] != (3, size, size):
            raise UserError(f"CodeFormer restores frames (…, 3, {size}, {size}); got {tuple(lq.shape)}")
        frames = lq.flatten(0, -4)
        z, features = self.lq_encoder(frames)
        logits = self.code_transformer(z)
        codes = logits.argmax(-1)
        z_q = self.codebook.lookup(codes, *z.shape[-2:])
        if adain:
            z_q = match_statistics(z_q, z)

        def fuse(scale: int, x: Tensor) -> Tensor:
            return self.cft[str(scale)](features[scale], x, w) if w > 0 and str(scale) in self.cft else x

        output, z, logits, codes = (
            x.unflatten(0, lq.shape[:-3]) for x in (self.generator(z_q, fuse), z, logits, codes)
        )
        return CodeFormerOutput(output, z, logits, codes) if return_states else output

    @staticmethod
    def from_public(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The names of CodeFormer's authors → ours; ours stay as they are."""
        return from_public(state)


def match_statistics(x: Tensor, like: Tensor, eps: float = 1e-5) -> Tensor:
    """AdaIN (Huang & Belongie, ICCV 2017): ``x`` (N, C, h, w) with the mean and deviation of ``like``."""
    own, wanted = (torch.var_mean(t, dim=(2, 3), keepdim=True) for t in (x, like))
    return (x - own[1]) / (own[0] + eps).sqrt() * (wanted[0] + eps).sqrt() + wanted[1]
