"""What several test files share: a moving clip on disk, and the tiny options pointed at it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from keep.data.video_io import write_video

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two clips, 12 frames of 40×40: a coloured disc that moves."""
    folder = tmp_path_factory.mktemp("clips")
    y, x = np.mgrid[:40, :40]
    for n, colour in enumerate([(220, 160, 120), (90, 120, 200)]):
        frames = np.zeros((12, 40, 40, 3), np.uint8)
        frames[:] = 40 + 2 * x[..., None]
        for t in range(12):
            frames[t][(y - 20) ** 2 + (x - 10 - t) ** 2 < 81] = colour
        write_video(folder / f"disc{n}.mkv", frames, fps=25, codec="ffv1")
    return folder


NET = [
    "model.net.image_size=32", "model.net.channels=8", "model.net.ch_mult=[1, 2, 2]",
    "model.net.attn_resolutions=[8]", "model.net.latent_dim=8", "model.net.codebook_size=16",
]  # fmt: skip
KEEP_NET = [
    *NET, "model.net.transformer_width=16", "model.net.transformer_heads=2", "model.net.transformer_layers=1",
    "model.net.transformer_mlp_width=16", "model.net.kalman_head_dim=8",
    "model.net.cft_scales=[8, 16]", "model.net.cfa_scales=[8, 16]",
]  # fmt: skip


@pytest.fixture
def tiny(clips: Path, tmp_path: Path):
    """(stage number, *overrides) → (options file, overrides) of a run of 4 steps on 32×32 frames."""

    def options(stage: int, *more: str) -> tuple[Path, list[str]]:
        length = 1 if stage == 1 else 3
        common = [
            f"root={tmp_path / 'experiments'}", f"data.train.root={clips}", f"data.train.clip_length={length}",
            "data.train.size=32", "data.workers=0", "data.batch_size=1", "train.iters=4", "log.interval=1",
            "log.image_interval=2", "log.save_interval=2", "data.val=null",
        ]  # fmt: skip
        network = NET if stage == 1 else KEEP_NET
        previous = {1: [], 2: ["pretrained.vqgan="], 3: ["pretrained.keep="]}[stage]
        paths = [p + str(tmp_path / f"experiments/stage{stage - 1}/models/net_latest.pth") for p in previous]
        if stage == 1:
            common += ["model.gan_start=2"]
        return ROOT / f"options/tiny/stage{stage}.yml", [*common, *network, *paths, *more]

    return options
