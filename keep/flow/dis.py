"""Dense inverse search: OpenCV's classical flow estimator, without weights, on the CPU."""

import time
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from keep.config.registry import FLOWS
from keep.utils.errors import UserError

SMALLEST_SIDE = 256  # smaller frames are enlarged: DIS works on pyramids of 8×8 patches


@FLOWS.register("dis")
class DIS(nn.Module):
    """Dense inverse search (Kroeger et al., ECCV 2016) of OpenCV, on grey frames; CPU only, no weights.

    Args:
        preset: OpenCV's preset of speed against accuracy.

    Attributes:
        cpu_seconds: seconds spent in the estimator so far; training on a GPU warns about it.
    """

    def __init__(self, preset: Literal["ultrafast", "fast", "medium"] = "medium") -> None:
        super().__init__()
        try:
            import cv2
        except ImportError as error:
            raise UserError("flow estimator 'dis' needs OpenCV: pip install opencv-python-headless") from error
        self.name = f"DIS-{preset}"
        self.cpu_seconds = 0.0
        # The OpenCV object is built at each call: it cannot be copied or pickled with the module.
        self.preset = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}")

    @torch.no_grad()
    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [-1, 1], twice → flow current→previous (N, 2, H, W), float32, in pixels."""
        start = time.perf_counter()
        pairs = zip(_grey(current), _grey(previous), strict=True)
        flows = [self._pair(c, p) for c, p in pairs]
        self.cpu_seconds += time.perf_counter() - start
        return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).contiguous().to(current.device)

    def _pair(self, current: np.ndarray, previous: np.ndarray) -> np.ndarray:
        """Grey uint8 (H, W), twice → flow (H, W, 2)."""
        import cv2

        height, width = current.shape
        scale = max(1.0, SMALLEST_SIDE / min(height, width))
        size = (round(width * scale), round(height * scale))
        if scale > 1:
            current, previous = (cv2.resize(f, size, interpolation=cv2.INTER_CUBIC) for f in (current, previous))
        flow = cv2.DISOpticalFlow.create(self.preset).calc(current, previous, None)  # type: ignore[call-overload]
        if scale > 1:
            flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA)
            flow = flow * np.array([width / size[0], height / size[1]], np.float32)
        return flow


def _grey(frames: Tensor) -> list[np.ndarray]:
    """(N, 3, H, W) RGB in [-1, 1] → N uint8 images (H, W)."""
    import cv2

    pixels = ((frames.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in pixels]
