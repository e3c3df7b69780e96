import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def texture() -> np.ndarray:
    """A smooth colour texture that moves: uint8 (6, 64, 96, 3)."""
    noise = np.random.default_rng(0).uniform(0, 255, (64, 96, 3)).astype(np.float32)
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)  # pyright: ignore
    return np.stack([np.roll(image, (t, 2 * t), (0, 1)) for t in range(6)]).astype(np.uint8)
