"""Perceptual losses on pretrained classifiers. A network without weights is an error, never random."""

import logging
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from keep.config.registry import LOSSES
from keep.utils.downloads import Unavailable, torchvision_weights
from keep.utils.ranges import Weight
from keep.utils.weight_files import fill, load_network

log = logging.getLogger(__name__)

BACKBONES = {
    "vgg": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}


class Frozen(nn.Module):
    """A pretrained network: its weights do not train, and it is always in evaluation mode."""

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


class LPIPSDistance(Frozen):
    """LPIPS v0.1 (Zhang et al., CVPR 2018): heads of the ``lpips`` package on a torchvision backbone.

    Args:
        net: the backbone.
        weights: torchvision's state dict of it; by default a cached file, else a download.

    Raises:
        Unavailable: the package or the backbone is missing.
        UserError: ``weights`` is no file, or the file of another network.
    """

    def __init__(self, net: Literal["vgg", "alex", "squeeze"], weights: Path | None = None) -> None:
        super().__init__()
        try:
            import lpips
        except ImportError as error:
            raise Unavailable("LPIPS needs the package lpips: pip install lpips") from error
        path = torchvision_weights(BACKBONES[net], weights)
        with warnings.catch_warnings(), torch.device("meta"):  # saves time and random numbers: all weights are replaced
            warnings.simplefilter("ignore")  # lpips calls torchvision by a deprecated name
            self.net = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
        heads_path = Path(lpips.__file__).parent / "weights/v0.1" / f"{net}.pth"
        heads, self.files = load_network(heads_path), (path, heads_path)
        for i, head in enumerate(self.net.lins):
            head.load_state_dict({"model.1.weight": heads[f"lin{i}.model.1.weight"]}, assign=True)
        # lpips names the layers of the backbone slice<k>.<index in features>.…
        names = {name: "features." + name.split(".", 1)[1] for name in self.net.net.state_dict()}
        state = load_network(path)
        self.net.net.to_empty(device="cpu")
        fill(self.net.net, {ours: state[theirs] for ours, theirs in names.items() if theirs in state}, path)
        self.requires_grad_(False).eval()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [-1, 1], twice → distances (N,)."""
        return self.net(output, target).flatten()

    def blocks(self, output: Tensor, target: Tensor, blocks: int) -> Tensor:
        """The same pair → the distance block by block (N, 1, blocks, blocks); its mean is about the distance.

        Maps of layers finer than the blocks are averaged over them, coarser ones interpolated.
        """
        import lpips

        a, b = (
            [lpips.normalize_tensor(f) for f in self.net.net(self.net.scaling_layer(x))] for x in (output, target)
        )  # fmt: skip
        maps = [head((x - y).square()) for head, x, y in zip(self.net.lins, a, b, strict=True)]
        grids = [
            F.adaptive_avg_pool2d(m, blocks)
            if m.shape[-1] >= blocks
            else F.interpolate(m, (blocks, blocks), mode="bilinear", align_corners=False)
            for m in maps
        ]
        return torch.stack(grids).sum(0)


class VGGFeatures(Frozen):
    """Features relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of torchvision's VGG16.

    Args:
        weights: torchvision's state dict of VGG16; by default a cached file, else a download.

    Raises:
        Unavailable: torchvision or the weights are missing.
        UserError: ``weights`` is no file, or the file of another network.
    """

    ENDS = (3, 8, 15, 22, 29)

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        try:
            from torchvision.models import vgg16
        except ImportError as error:
            raise Unavailable("VGGPerceptual needs torchvision: pip install torchvision") from error
        path = torchvision_weights(BACKBONES["vgg"], weights)
        with torch.device("meta"):  # the classifier, 9/10 of the network, is never allocated
            layers = list(vgg16(weights=None).features.children())[: self.ENDS[-1] + 1]
        self.features = nn.Sequential(*layers).to_empty(device="cpu")
        state = {k.removeprefix("features."): v for k, v in load_network(path).items() if k.startswith("features.")}
        fill(self.features, state, path)
        self.files = (path,)
        self.mean = nn.Buffer(torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, frames: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB in [-1, 1] → five feature maps, from fine to coarse."""
        x, found = ((frames + 1) / 2 - self.mean) / self.std, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.ENDS:
                found.append(x)
        return found


class _Perceptual(nn.Module, ABC):
    """Base of both losses: a network that may be missing, and clips flattened to frames."""

    def __init__(self, weight: float, if_missing: str, checkpoint: bool) -> None:
        super().__init__()
        self.weight = weight
        self.if_missing = if_missing
        self.checkpoint = checkpoint
        self.net: nn.Module | None = None

    @property
    def active(self) -> bool:
        """False if the network is missing and the options skip the loss."""
        return self.net is not None

    def _build(self, cls: type[nn.Module], *options) -> None:
        try:
            self.net = cls(*options)
        except Unavailable as error:
            if self.if_missing == "stop":
                more = "; {place}if_missing: skip trains without this loss"
                raise Unavailable(error.message + more, error.place) from error
            log.warning("loss %s is OFF (if_missing: skip): %s", type(self).__name__, error)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """(N, 3, H, W) or (B, T, 3, H, W) RGB in [-1, 1], twice → scalar, the mean over frames; 0 where inactive."""
        if self.net is None:
            return output[:0].sum()  # a zero with a graph: backward works
        frames = output.float().flatten(0, -4), target.float().flatten(0, -4)
        if not self.checkpoint:
            return self._loss(*frames)
        pairs = zip(*(f.split(1) for f in frames), strict=True)
        return torch.stack([checkpoint(self._loss, *pair, use_reentrant=False) for pair in pairs]).mean()

    @abstractmethod
    def _loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss on frames (N, 3, H, W); called only when the network exists."""


@LOSSES.register()
class LPIPS(_Perceptual):
    """Learned perceptual distance (LPIPS v0.1): 𝓛_per of eq. (3) and (8).

    Args:
        weight: factor of this term in the total.
        net: the backbone; vgg is the usual one to train with.
        weights: torchvision's file of that backbone; by default a cached file, else a download.
        if_missing: without the backbone, stop with an error, or skip the term with a warning.
        checkpoint: keep no activations of the backbone; the backward pass computes those of one frame at a time again.
            Much less memory, one more forward pass; gradients differ in rounding.
    """

    def __init__(
        self,
        weight: Weight = 1.0,
        net: Literal["vgg", "alex", "squeeze"] = "vgg",
        weights: Path | None = None,
        if_missing: Literal["stop", "skip"] = "stop",
        checkpoint: bool = False,
    ) -> None:
        super().__init__(weight, if_missing, checkpoint)
        self._build(LPIPSDistance, net, weights)

    def _loss(self, output: Tensor, target: Tensor) -> Tensor:
        assert self.net is not None
        return self.net(output, target).mean()


@LOSSES.register()
class VGGPerceptual(_Perceptual):
    """Weighted mean absolute differences of VGG16 features (Johnson et al., ECCV 2016).

    Args:
        weight: factor of this term in the total.
        layers: factors of relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.
        weights: torchvision's file of VGG16; by default a cached file, else a download.
        if_missing: without VGG16, stop with an error, or skip the term with a warning.
        checkpoint: keep no activations of VGG16; the backward pass computes those of one frame at a time again. Much
            less memory, one more forward pass; gradients differ in rounding.
    """

    def __init__(
        self,
        weight: Weight = 1.0,
        layers: tuple[Weight, Weight, Weight, Weight, Weight] = (1.0, 1.0, 1.0, 1.0, 1.0),
        weights: Path | None = None,
        if_missing: Literal["stop", "skip"] = "stop",
        checkpoint: bool = False,
    ) -> None:
        super().__init__(weight, if_missing, checkpoint)
        self.layers = layers
        self._build(VGGFeatures, weights)

    def _loss(self, output: Tensor, target: Tensor) -> Tensor:
        assert self.net is not None
        pairs = zip(self.layers, self.net(output), self.net(target), strict=True)
        return torch.stack([factor * F.l1_loss(a, b) for factor, a, b in pairs]).sum()
