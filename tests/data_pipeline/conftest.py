from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest


def moving_texture(frames: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """A smooth colour texture that moves: uint8 (frames, height, width, 3); no two frames are alike."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)  # pyright: ignore
    clip = np.stack([np.roll(image, (t, 2 * t), (0, 1)) for t in range(frames)]).astype(np.uint8)
    for t in range(frames):
        clip[t, :8, :8] = 4 * t  # the frame number, readable through compression
    return clip


@pytest.fixture(scope="session")
def texture() -> Callable[..., np.ndarray]:
    return moving_texture


@pytest.fixture(scope="session")
def encode() -> Callable[..., Path]:
    """Writes a video with encoder options that write_video does not offer (B-frames, key frame distance)."""

    def write(
        path: Path,
        frames: np.ndarray,
        codec: str = "libx264",
        rotation: int = 0,
        container: dict[str, str] | None = None,
        **options: str,
    ) -> Path:
        with av.open(str(path), "w", options=container or {}) as output:
            stream: Any = output.add_stream(codec, rate=25, options=options)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0" if codec == "ffv1" else "yuv420p"
            if rotation:
                stream.set_display_rotation(rotation)
            for image in frames:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            output.mux(stream.encode())
        return path

    return write


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three lossless videos of 12, 16 and 20 frames, one of them in a sub-folder."""
    from keep.data.video_io import write_video

    root = tmp_path_factory.mktemp("clips")
    (root / "sub").mkdir()
    for n, name in enumerate(("a.mkv", "b.mkv", "sub/c.mkv")):
        write_video(root / name, moving_texture(12 + 4 * n, seed=n), 25, codec="ffv1")
    return root
