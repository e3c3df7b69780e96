"""Identity networks: one vector per face, close for faces of one person and far apart for different people."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import cv2
import numpy as np
import torch
from pydantic import Field

from keep.config.registry import IDENTITIES
from keep.faces.align import crop, similarity
from keep.faces.embedding import Colour, Embedding, Flip, from_onnx
from keep.faces.files import facexlib, package_folder, read_onnx, state_dict, weights_file
from keep.utils.errors import UserError
from keep.utils.ranges import LARGEST_SIDE, Factor, Value
from keep.utils.weight_files import fill

Pixel = tuple[Value, Value]
Template = tuple[Pixel, Pixel, Pixel, Pixel, Pixel]
Length = Annotated[int, Field(ge=16, le=LARGEST_SIDE)]

# The five points in insightface's 112×112 crop, on which ArcFace networks are trained.
ARCFACE_112 = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
# The five points in the older crop, 96 pixels wide.
ARCFACE_112X96 = ((30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041))

# FFHQ's framing: align.TEMPLATE_512 at half size.
FFHQ_256 = (
    (96.4907, 119.9735), (159.4514, 120.0968), (128.3171, 157.0097), (100.6306, 185.7052), (156.5445, 185.5756),
)  # fmt: skip


class Identity(ABC):
    """Base of the identity networks. Each maps crops to vectors.

    Attributes:
        name: name of the network; part of the name of every metric that uses it.
        measure: comparison of two vectors: ``"cosine"`` similarity or ``"l2"`` distance.
        size: (height, width) of a crop.
        template: the five points in a crop.
        files: the weight files that were loaded.
    """

    name: str
    files: tuple[Path, ...] = ()
    measure: Literal["cosine", "l2"]
    size: tuple[int, int]
    template: Template
    width: int
    """D, the length of a vector."""

    @abstractmethod
    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Aligned crops, uint8 (N, h, w, 3) RGB → float32 (N, D)."""

    def to(self, device: torch.device | str) -> Self:
        """Move the network. Networks outside PyTorch stay on the CPU."""
        return self

    def differentiable(self) -> Embedding:
        """The network in PyTorch, for losses: crops → the same vectors as :meth:`embed`, with gradients.

        Raises:
            UserError: the network cannot run in PyTorch.
        """
        raise UserError(f"{self.name} does not run in PyTorch: a loss needs ArcFace or ONNXIdentity")

    def __call__(self, frames: np.ndarray, points: np.ndarray) -> np.ndarray:
        """One vector per frame.

        Args:
            frames: uint8 (T, H, W, 3) RGB.
            points: (T, 5, 2), the face in each frame, in pixels; NaN in frames without a face.

        Returns:
            float32 (T, D); NaN in frames without points. Vectors have unit length if ``measure`` is ``"cosine"``.
        """
        if len(frames) != len(points):
            raise UserError(f"{self.name}: {len(frames)} frames, but points for {len(points)}")
        known = [t for t in range(len(frames)) if np.isfinite(points[t]).all()]
        result = np.full((len(frames), self.width), np.nan, np.float32)
        for t in known:
            aligned = crop(frames[t], similarity(points[t], template=self.template), self.size)
            vector = self.embed(aligned[None])[0]
            result[t] = vector / max(float(np.linalg.norm(vector)), 1e-12) if self.measure == "cosine" else vector
        return result


@IDENTITIES.register()
class ArcFace(Identity):
    """ArcFace (Deng et al., CVPR 2019) from facexlib: IR-SE-50, 512 numbers.

    Args:
        weights: a state dict of the network; by default facexlib's published file, downloaded once.
        colour: channel order of the network's input. It was trained on images as OpenCV reads them: BGR. Some losses
            that use the same file feed RGB.
    """

    measure = "cosine"
    size = (112, 112)
    template = ARCFACE_112
    width = 512

    def __init__(self, weights: Path | None = None, colour: Colour = "BGR") -> None:
        module = facexlib("recognition.arcface_arch")
        path = weights_file("recognition_arcface_ir_se50.pth", weights)
        with torch.random.fork_rng(devices=[]):
            self.net = module.Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se")
        fill(self.net, state_dict(path), path)
        self.net.requires_grad_(False).eval()
        self.colour: Colour = colour
        self.device, self.name, self.files = torch.device("cpu"), "ArcFace-IR-SE50", (path,)

    def to(self, device: torch.device | str) -> Self:
        self.device = torch.device(device)
        self.net.to(self.device)
        return self

    def differentiable(self) -> Embedding:
        return Embedding(self.net, colour=self.colour)

    @torch.no_grad()
    def embed(self, crops: np.ndarray) -> np.ndarray:
        ordered = crops[..., ::-1] if self.colour == "BGR" else crops
        x = torch.from_numpy(np.ascontiguousarray(ordered.transpose(0, 3, 1, 2))).to(self.device).float() / 127.5 - 1
        return self.net(x).float().cpu().numpy()


@IDENTITIES.register()
class ONNXIdentity(Identity):
    """Any ArcFace-like network in an ONNX file, through OpenCV.

    The defaults fit a MobileFaceNet trained with ArcFace on 112×96 crops.

    Args:
        weights: the ONNX file: input N×3×height×width, output N×D.
        name: name in results; by default the file's name without suffix.
        size: height and width of a crop in pixels.
        template: the five points in a crop: left eye, right eye, nose, left and right corner of the mouth.
        mean: subtracted from each channel value (0…255).
        scale: factor applied after that.
        colour: channel order of the network's input.
        flip: use of the mirrored crop's vector: added, appended, or not computed.
    """

    measure = "cosine"

    def __init__(
        self,
        weights: Path,
        name: str | None = None,
        size: tuple[Length, Length] = (112, 96),
        template: Template = ARCFACE_112X96,
        mean: Value = 127.5,
        scale: Factor = 1 / 128,
        colour: Colour = "RGB",
        flip: Flip = "sum",
    ) -> None:
        path = weights_file("an ONNX identity network", weights)
        self.net, self.name = read_onnx(path), name or path.stem
        self.size, self.template, self.mean, self.scale = size, template, mean, scale
        self.colour: Colour = colour
        self.flip: Flip = flip
        self.files = (path,)
        self.width = self.embed(np.zeros((1, *size, 3), np.uint8)).shape[1]

    def differentiable(self) -> Embedding:
        return Embedding(from_onnx(self.files[0]), self.mean, self.scale, self.colour, self.flip)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        plain = self._run(crops)
        if self.flip == "none":
            return plain
        mirrored = self._run(crops[:, :, ::-1])
        return plain + mirrored if self.flip == "sum" else np.concatenate([plain, mirrored], 1)

    def _run(self, crops: np.ndarray) -> np.ndarray:
        """Run one crop at a time: many exported files have a fixed batch size of one."""
        vectors: list[Any] = []
        for image in crops:
            blob = (image.astype(np.float32) - self.mean) * self.scale
            blob = blob[..., ::-1] if self.colour == "BGR" else blob
            self.net.setInput(np.ascontiguousarray(blob.transpose(2, 0, 1)[None]))
            try:
                vectors.append(np.array(self.net.forward(), np.float32).reshape(-1))
            except cv2.error as error:
                raise UserError(
                    f"{self.name}: the network does not take 3×{self.size[0]}×{self.size[1]}: {error.err}"
                ) from error
        return np.stack(vectors)


@IDENTITIES.register()
class Dlib(Identity):
    """dlib's face recognition network (King, 2017): 128 numbers, compared by L2 distance; offline, from packages.

    Its distances are not comparable to ArcFace's cosine similarities. Faces of one person are mostly closer than 0.6.
    """

    measure = "l2"
    width = 128
    size = (256, 256)
    template = FFHQ_256

    def __init__(self) -> None:
        dlib = import_dlib()
        self.name = "dlib-resnet"
        self._rectangle = dlib.rectangle(*DLIB_BOX_256)
        points = dlib_model("shape_predictor_5_face_landmarks.dat")
        network = dlib_model("dlib_face_recognition_resnet_model_v1.dat")
        self._shape, self._net = dlib.shape_predictor(str(points)), dlib.face_recognition_model_v1(str(network))
        self.files = (points, network)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                np.array(self._net.compute_face_descriptor(image, self._shape(image, self._rectangle)), np.float32)
                for image in map(np.ascontiguousarray, crops)
            ]
        )


DLIB_BOX_256 = (62, 78, 211, 228)
"""Box of dlib's own detector in a 256×256 FFHQ crop, median of 21 people: left, top, right, bottom."""


def import_dlib() -> Any:
    """The package dlib (wheels: dlib-bin)."""
    try:
        import dlib  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"dlib cannot be imported ({error}): pip install keep-vfsr[dlib]") from error
    return dlib


def dlib_model(file_name: str) -> Path:
    """A file of face-recognition-models. It is found by path because importing that package needs pkg_resources."""
    path = package_folder("face_recognition_models", "keep-vfsr[dlib]") / "models" / file_name
    if not path.is_file():
        raise UserError(f"{path} is missing: pip install --force-reinstall face-recognition-models")
    return path
