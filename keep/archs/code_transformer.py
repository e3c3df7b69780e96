"""T_Q: predicts the codebook index of every latent token (supplement Fig. A2, adopted from CodeFormer)."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.archs.blocks import to_tokens
from keep.config.registry import ARCHS
from keep.utils.errors import UserError
from keep.utils.ranges import Depth, Width


class TransformerLayer(nn.Module):
    """Pre-norm self-attention with positions added to query and key, then a GELU MLP; tokens (N, L, width)."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1 = nn.Linear(width, mlp_width)
        self.linear2 = nn.Linear(mlp_width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.self_attn(y + position, y + position, y, need_weights=False)[0]
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


@ARCHS.register()
class CodeTransformer(nn.Module):
    """T_Q: a latent code (N, latent_dim, h, w) to logits over the codes, (N, h·w, codebook_size).

    Args:
        tokens: number of latent tokens, h·w.
        latent_dim: channels of the latent code.
        codebook_size: number of codes.
        width: width of the transformer.
        heads: attention heads; must divide ``width``.
        layers: transformer layers.
        mlp_width: inner width of the MLPs.
    """

    def __init__(
        self,
        tokens: Width = 256,
        latent_dim: Width = 256,
        codebook_size: Width = 1024,
        width: Width = 512,
        heads: Depth = 8,
        layers: Depth = 9,
        mlp_width: Width = 1024,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"code transformer: width {width} is not a multiple of {heads} heads")
        self.position_emb = nn.Parameter(torch.zeros(tokens, width))
        self.feat_emb = nn.Linear(latent_dim, width)
        self.ft_layers = nn.ModuleList(TransformerLayer(width, heads, mlp_width) for _ in range(layers))
        self.idx_pred_layer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, codebook_size, bias=False))
        self.apply(_init)

    def forward(self, z: Tensor) -> Tensor:
        x = self.feat_emb(to_tokens(z))
        for layer in self.ft_layers:
            x = layer(x, self.position_emb)
        return self.idx_pred_layer(x)


def _init(module: nn.Module) -> None:
    """Normal weights with standard deviation .02 and zero biases, as in GPT and BERT."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)
