"""Third-party face restoration networks for images, run frame by frame from a weight file.

Their input is that of KEEP: the LQ frame, upsampled bilinearly, in [-1, 1].
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keep.config.registry import BASELINES
from keep.degradation.resize import upsample
from keep.utils.errors import OptionError, UserError
from keep.utils.paths import expand
from keep.utils.ranges import Scale, Share
from keep.utils.torchscript import load_torchscript


@BASELINES.register()
class Spandrel:
    """GFPGAN, RestoreFormer or CodeFormer through the package spandrel, which detects the network from the file.

    Files: those of :data:`FILES`; docs/baselines.md has their sizes, hashes and licences. GFPGAN draws noise, as in
    its authors' script; here the number of the frame is its seed.

    Args:
        weights: the file that its authors published.
        fidelity: w of CodeFormer: 0 is the code alone, 1 is closest to the input; its authors' default is 0.5. The
            other networks have none.
        scale: upsampling factor of the LQ frames.
    """

    def __init__(self, weights: Path, fidelity: Share = 0.5, scale: Scale = 4) -> None:
        path = expand(weights)
        if not path.is_file():
            raise OptionError(f"{{place}}weights: there is no file {path}; {WANTED}")
        model = _load_with_spandrel(path)
        if model.architecture.id not in CALLS:
            raise UserError(f"{weights} holds {model.architecture.name}, no face restorer; {WANTED}")
        self.arch = model.architecture.id
        self.net = model.model.requires_grad_(False).eval()
        self.weights, self.scale, self.fidelity, self.files = weights, scale, fidelity, (path,)

    def to(self, device: torch.device) -> "Spandrel":
        self.net.to(device)
        return self

    def describe(self) -> str:
        fidelity = f", w {self.fidelity:g}" if self.arch == "CodeFormer" else ""
        return f"{self.arch} (spandrel{fidelity}) {self.weights}"

    @torch.no_grad()
    def __call__(self, lq: Tensor) -> Tensor:
        """(T, 3, 128, 128) in [-1, 1] → (T, 3, 512, 512) in [-1, 1]."""
        return _each(lq, self.scale, lambda frame: CALLS[self.arch](self.net, frame, self.fidelity), side=512)


FILES = {
    "GFPGAN": "GFPGANv1.4.pth or GFPGANv1.3.pth",
    "RestoreFormer": "RestoreFormer.ckpt",
    "CodeFormer": "codeformer.pth",
}
"""Network → the files of its authors that are read."""
WANTED = "wanted: " + ", ".join(f"{files} ({name})" for name, files in FILES.items())

# The networks are called directly: spandrel's descriptors pass images in [0, 1] to CodeFormer and GFPGAN, which need
# [-1, 1], and do not pass w.
CALLS: dict[str, Callable[[torch.nn.Module, Tensor, float], Tensor]] = {
    "GFPGAN": lambda net, frame, w: net(frame, return_rgb=False)[0],
    "RestoreFormer": lambda net, frame, w: net(frame)[0],
    "CodeFormer": lambda net, frame, w: net(frame, weight=w)[0],
}


@BASELINES.register()
class TorchScript:
    """Any image restoration network exported as TorchScript, such as GPEN.

    spandrel does not support GPEN; export it in an environment with GPEN's own code and ``GPEN-BFR-512.pth`` loaded:
    ``torch.jit.trace(lambda x: net(x)[0], torch.zeros(1, 3, 512, 512)).save("GPEN-BFR-512.pt")``.

    Args:
        weights: the file; the network takes float (1, 3, H, W) RGB in [-1, 1] and returns the same, or a tuple that
            starts with it.
        name: of the network, for the report.
        scale: upsampling factor of the LQ frames.
    """

    def __init__(self, weights: Path, name: str = "TorchScript", scale: Scale = 4) -> None:
        self.net = load_torchscript(weights)
        self.weights, self.name, self.scale, self.files = weights, name, scale, (expand(weights),)

    def to(self, device: torch.device) -> "TorchScript":
        self.net.to(device)
        return self

    def describe(self) -> str:
        return f"{self.name} (TorchScript) {self.weights}"

    @torch.no_grad()
    def __call__(self, lq: Tensor) -> Tensor:
        """(T, 3, h, w) in [-1, 1] → (T, 3, scale·h, scale·w) in [-1, 1]."""

        def call(frame: Tensor) -> Tensor:
            output = self.net(frame)
            return output[0] if isinstance(output, tuple | list) else output

        return _each(lq, self.scale, call)


def _each(lq: Tensor, scale: int, restore: Callable[[Tensor], Tensor], side: int | None = None) -> Tensor:
    """Restore every upsampled frame (1, 3, H, W), clamped; the number of the frame seeds any noise."""
    height, width = (length * scale for length in lq.shape[-2:])
    if side and (height, width) != (side, side):
        raise UserError(f"this network restores faces of {side}×{side} pixels, not {width}×{height}")
    devices = [lq.device] if lq.device.type == "cuda" else []
    restored = []
    with torch.random.fork_rng(devices=devices):
        for t, frame in enumerate(lq.split(1)):
            torch.manual_seed(t)
            restored.append(restore(upsample(frame, scale)).clamp(-1, 1))
    return torch.cat(restored)


def _load_with_spandrel(path: Path) -> Any:
    try:
        from spandrel import ModelLoader, UnsupportedModelError
    except ImportError as error:
        raise UserError(f"baseline Spandrel needs spandrel: pip install keep-vfsr[baselines] ({error})") from error
    try:
        import spandrel_extra_arches
    except ImportError:
        extra = ""
    else:
        extra = " with spandrel-extra-arches"
        spandrel_extra_arches.install(ignore_duplicates=True)
    try:
        return ModelLoader("cpu").load_from_file(path)
    except UnsupportedModelError:
        hint = "" if extra else "; CodeFormer needs the package spandrel-extra-arches beside it"
        raise UserError(f"{path} holds a network that spandrel{extra} does not support; {WANTED}{hint}") from None
    except Exception as error:  # unpickling and loading raise many kinds of errors
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} cannot be loaded by spandrel ({reason}); {WANTED}") from error
