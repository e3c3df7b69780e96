"""Numbers of the paper, quoted beside ours and never mixed with them."""

from collections.abc import Sequence

SOURCE = (
    "Feng, Li, Loy: Kalman-Inspired Feature Propagation for Video Face Super-Resolution (ECCV 2024), "
    "supplement, table A2"
)
NOTE = (
    "Quoted, not measured here: VFHQ-Test, with clips and degradations drawn by the authors. "
    "The paper names no network for LPIPS, IDS and AKD, so these columns are not comparable with this run; "
    "the others are comparable only at 512 px on VFHQ-Test."
)
SIZE = [512, 512]


def note(sizes: Sequence[Sequence[int]]) -> str:
    """``NOTE``; if the frames of the run have other sizes, (height, width), also that no column is comparable."""
    others = sorted({f"{width}×{height}" for height, width in sizes if [height, width] != SIZE})
    return NOTE + (f" The frames of this run are {', '.join(others)}: no column is comparable." if others else "")


COLUMNS = ("PSNR", "SSIM", "LPIPS", "IDS", "AKD", "σ_IDS", "σ_AKD")
HIGHER_IS_BETTER = (True, True, False, True, False, False, False)
FACTORS = (1, 1, 1, 1, 1, 100, 1)
"""The table prints σ_IDS times 100; the values below are as printed."""
DECIMALS = 4

A2: dict[str, dict[str, tuple[float, ...]]] = {
    "mild": {
        "GPEN": (25.5193, 0.7517, 0.2988, 0.7142, 11.4691, 4.7416, 3.5109),
        "GFPGAN": (26.2933, 0.7795, 0.2482, 0.7437, 10.5467, 4.5700, 3.6482),
        "RestoreFormer": (25.5720, 0.7344, 0.3195, 0.7530, 10.5354, 4.7159, 3.4122),
        "CodeFormer": (24.6597, 0.7454, 0.2742, 0.6272, 11.4983, 6.3726, 3.6927),
        "EDVR": (26.6051, 0.7858, 0.2484, 0.7195, 11.6220, 4.8048, 3.5829),
        "BasicVSR": (26.0458, 0.7765, 0.2496, 0.6973, 11.3679, 5.0343, 3.6054),
        "BasicVSR++": (27.1996, 0.8057, 0.1958, 0.7641, 11.3136, 5.2543, 4.6425),
        "KEEP": (27.9994, 0.8267, 0.1619, 0.7960, 8.8182, 3.6866, 3.2538),
    },
    "medium": {
        "GPEN": (25.1871, 0.7460, 0.3063, 0.6741, 12.2091, 5.3168, 3.6872),
        "GFPGAN": (26.2826, 0.7839, 0.2554, 0.6970, 11.1332, 5.2539, 3.7173),
        "RestoreFormer": (25.5123, 0.7256, 0.3346, 0.7044, 11.2567, 5.3760, 3.6448),
        "CodeFormer": (24.6238, 0.7424, 0.2852, 0.6077, 11.8149, 6.7256, 3.7899),
        "EDVR": (26.3385, 0.7815, 0.2625, 0.6771, 12.4233, 5.2598, 3.6660),
        "BasicVSR": (25.8332, 0.7725, 0.2594, 0.6638, 12.4503, 5.7990, 3.8101),
        "BasicVSR++": (26.5465, 0.7918, 0.2203, 0.6919, 13.4386, 6.8957, 5.6914),
        "KEEP": (27.4853, 0.8171, 0.1740, 0.7481, 9.5937, 4.6179, 3.3764),
    },
    "heavy": {
        "GPEN": (25.0191, 0.7437, 0.3108, 0.6544, 12.4814, 5.6768, 3.8088),
        "GFPGAN": (26.0747, 0.7807, 0.2613, 0.6761, 11.6804, 6.8689, 3.9346),
        "RestoreFormer": (25.3354, 0.7216, 0.3458, 0.6715, 11.7674, 5.6277, 3.6966),
        "CodeFormer": (24.5600, 0.7407, 0.2916, 0.5949, 12.0462, 5.9110, 3.9079),
        "EDVR": (26.1600, 0.7792, 0.2729, 0.6524, 13.0927, 5.9243, 3.8166),
        "BasicVSR": (25.6895, 0.7695, 0.2686, 0.6426, 12.7841, 6.1689, 3.8356),
        "BasicVSR++": (26.2686, 0.7872, 0.2289, 0.6650, 14.2254, 7.2980, 6.1919),
        "KEEP": (27.2165, 0.8124, 0.1803, 0.7282, 9.8833, 4.8643, 3.3217),
    },
}
"""Level of degradation → method → values in the order of ``COLUMNS``, as printed in table A2."""
