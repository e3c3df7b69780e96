"""High dynamic range, PQ and HLG of ITU-R BT.2100, as a display with BT.709 shows it, and back.

Detectors and networks know display-referred BT.709. The way there: light of the display, BT.2020 primaries to BT.709,
a curve that leaves dark and middle tones alone and compresses what is brighter, gamma 2.4. Each step can be inverted,
so a restored face gets the transfer of its surroundings. Only light above ``PEAK`` and colours outside BT.709 are
clipped.
"""

from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np

Transfer = Literal["sdr", "pq", "hlg"]
TRANSFERS: dict[int, Transfer] = {16: "pq", 18: "hlg"}  # FFmpeg's numbers (ITU-T H.273)

WHITE, PEAK = 203.0, 1000.0  # cd/m²: diffuse white (BT.2408), and the brightest light that is kept
KNEE, GAMMA, SYSTEM_GAMMA = 0.6, 2.4, 1.2
LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
TO_709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)
FROM_709 = np.linalg.inv(TO_709.astype(np.float64)).astype(np.float32)
STEPS = 65536  # of the table from light to display values


def to_display(image: np.ndarray, transfer: Transfer) -> np.ndarray:
    """uint16 (H, W, 3), PQ or HLG with BT.2020 primaries → uint8 (H, W, 3), BT.709 as displayed."""
    light = np.take(_light(transfer), image)
    if transfer == "hlg":  # from the scene's light to the display's
        luma = cv2.transform(light, LUMA[None])
        light *= (PEAK / WHITE) * (np.maximum(luma, 1e-6) ** np.float32(SYSTEM_GAMMA - 1))[..., None]
    light = cv2.transform(light, TO_709)
    np.clip(light * (WHITE / PEAK), 0, 1, out=light)
    return np.take(_display(), (np.sqrt(light) * (STEPS - 1) + 0.5).astype(np.uint16))


def from_display(image: np.ndarray, transfer: Transfer) -> np.ndarray:
    """The inverse of :func:`to_display`: uint8 (H, W, 3) → uint16 (H, W, 3)."""
    light = cv2.transform(np.take(_inverse(), image), FROM_709).clip(0, PEAK / WHITE)
    if transfer == "pq":
        signal = _pq(light * WHITE)
    else:
        shown = light * (WHITE / PEAK)
        luma = np.maximum(cv2.transform(shown, LUMA[None]), 1e-6)
        signal = _hlg(shown * (luma ** np.float32(1 / SYSTEM_GAMMA - 1))[..., None])
    return (signal.clip(0, 1) * 65535 + 0.5).astype(np.uint16)


def light_of(frame: Any) -> str:
    """Mastering display and light level of a decoded PyAV frame, as options of x265; empty where it has none."""
    options = []
    for data in frame.side_data:
        if data.type.name == "MASTERING_DISPLAY_METADATA":
            numbers = np.frombuffer(bytes(data), np.int32, 22)
            if not numbers[20:].all():
                continue
            values = numbers[0:20:2] / np.maximum(numbers[1:20:2], 1)
            r, g, b, white = (f"({x:.0f},{y:.0f})" for x, y in 50_000 * values[:8].reshape(4, 2))
            least, most = 10_000 * values[8:]
            options.append(f"master-display=G{g}B{b}R{r}WP{white}L({most:.0f},{least:.0f})")
        elif data.type.name == "CONTENT_LIGHT_LEVEL":
            most, average = np.frombuffer(bytes(data), np.uint32, 2)
            options.append(f"max-cll={most},{average}")
    return ":".join(options)


@lru_cache(maxsize=2)
def _light(transfer: Transfer) -> np.ndarray:
    """float32 (65536,): light of each value; 1 is ``WHITE`` for PQ, the brightest scene for HLG."""
    signal = np.arange(65536) / 65535
    if transfer == "hlg":
        a, b, c = _HLG
        return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)
    m1, m2, c1, c2, c3 = _PQ
    root = signal ** (1 / m2)
    return (10000 / WHITE * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)).astype(np.float32)


@lru_cache(maxsize=1)
def _display() -> np.ndarray:
    """uint8 (STEPS,): displayed value of light, given as the square root of its part of ``PEAK``."""
    light = (np.arange(STEPS) / (STEPS - 1)) ** 2 * PEAK / WHITE
    over = np.maximum(light - KNEE, 0) / (1 - KNEE)
    shown = np.where(light <= KNEE, light, KNEE + (1 - KNEE) * over / (1 + over))
    return (255 * shown ** (1 / GAMMA) + 0.5).astype(np.uint8)


@lru_cache(maxsize=1)
def _inverse() -> np.ndarray:
    """float32 (256,): light of each displayed value; 1 is ``WHITE``."""
    shown = (np.arange(256) / 255) ** GAMMA
    over = np.clip((shown - KNEE) / (1 - KNEE), 0, 0.999)
    light = np.where(shown <= KNEE, shown, KNEE + (1 - KNEE) * over / (1 - over))
    return np.minimum(light, PEAK / WHITE).astype(np.float32)


_PQ = (2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128)
_HLG = (0.17883277, 0.28466892, 0.55991073)


def _pq(nits: np.ndarray) -> np.ndarray:
    m1, m2, c1, c2, c3 = _PQ
    power = (nits / 10000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def _hlg(scene: np.ndarray) -> np.ndarray:
    a, b, c = _HLG
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-6)) + c)
