"""Weights of the face networks: from a given file, this machine, or their publisher, checked by sha256."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from keep.utils.downloads import cache_folder, fetch
from keep.utils.errors import OptionError, UserError
from keep.utils.opencv import quiet_opencv
from keep.utils.paths import expand
from keep.utils.weight_files import load_network

_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download"
PUBLISHED = {
    "detection_Resnet50_Final.pth": (
        f"{_FACEXLIB}/v0.1.0",
        "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
    ),
    "detection_mobilenet0.25_Final.pth": (
        f"{_FACEXLIB}/v0.1.0",
        "2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
    ),
    "recognition_arcface_ir_se50.pth": (
        f"{_FACEXLIB}/v0.1.0",
        "a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
    ),
    "alignment_WFLW_4HG.pth": (
        f"{_FACEXLIB}/v0.1.0",
        "bbfd137307a4c7debd5c283b9b0ce539466cee417ac0a155e184d857f9f2899c",
    ),
    "parsing_bisenet.pth": (
        f"{_FACEXLIB}/v0.2.0",
        "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
    ),
    "parsing_parsenet.pth": (
        f"{_FACEXLIB}/v0.2.2",
        "3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
    ),
    "face_detection_yunet_2023mar.onnx": (
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    ),
}
"""File name → (URL of its folder, sha256 from public package recipes)."""


def weights_file(file_name: str, weights: Path | None = None, cache: Path | None = None) -> Path:
    """The file ``weights`` if given; else the published ``file_name``, from this machine or downloaded.

    Raises:
        UserError: no such file, or it is damaged.
        keep.utils.downloads.Unavailable: the file is not on this machine and cannot be downloaded.
    """
    if weights is not None:
        path = expand(weights)
        if not path.is_file():
            raise OptionError(f"{{place}}weights: there is no file {path} (expected: {file_name})")
        return path
    folder, sha256 = PUBLISHED[file_name]
    return fetch(f"{folder}/{file_name}", sha256, file_name, cache)


def is_available(file_name: str, cache: Path | None = None) -> bool:
    """Whether the published ``file_name`` is on this machine, so that no download is needed."""
    folders = (Path(torch.hub.get_dir()) / "checkpoints", cache or cache_folder())
    return any((folder / file_name).is_file() for folder in folders)


def state_dict(path: Path) -> dict[str, Tensor]:
    """The weights in a ``.pth`` file, without the prefix ``module.`` that parallel training adds."""
    return {name.removeprefix("module."): value for name, value in load_network(path).items()}


def facexlib(module: str) -> ModuleType:
    """The module ``facexlib.<module>``. Only network definitions are used, never its downloads."""
    try:
        return importlib.import_module(f"facexlib.{module}")
    except ImportError as error:
        raise UserError(
            f"this network needs facexlib, which cannot be imported ({error}): pip install --no-deps facexlib"
        ) from error


def package_folder(package: str, install: str) -> Path:
    """The folder of an installed package, found without importing it; ``install`` is what pip needs to install it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {package} is not installed: pip install {install}")
    return Path(spec.origin).parent


def read_onnx(path: Path) -> Any:
    """A network for ``cv2.dnn``."""
    import cv2

    with quiet_opencv():  # version 5 warns about an unneeded target
        try:
            return cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise UserError(f"{path} is not an ONNX network that OpenCV can read: {error.err or error}") from error
