"""scripts/bench/streaming.py: its tables, its picture and its measure of jumps."""

import numpy as np
import pytest
import torch
from networks import tiny

from keep.data.video_io import write_video
from keep.flow.gmflow import GMFlow
from keep.inference.weights import save_safetensors
from keep.utils.errors import UserError
from scripts.bench import streaming


def test_tables_and_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(streaming, "LENGTHS", (2, 4))
    frames = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)
    write_video(tmp_path / "clip.mkv", frames, fps=25, codec="ffv1")
    save_safetensors(tiny(flow=GMFlow(random_weights=True)), tmp_path / "tiny.safetensors")
    streaming.bench(
        [str(tmp_path / "clip.mkv"), "-w", str(tmp_path / "tiny.safetensors"), "--out", str(tmp_path / "bars.png")]
    )
    printed = capsys.readouterr().out
    for text in ("| ours, windows of 8 | output |", "| reset every 20 frames | gain |", "| 4 |"):
        assert text in printed
    assert (tmp_path / "bars.png").stat().st_size > 5000
    with pytest.raises(UserError, match="has 20 frames; a border every"):
        streaming.bench([str(tmp_path / "clip.mkv"), "-w", str(tmp_path / "tiny.safetensors"), "--frames", "20"])


def test_jumps_are_measured_at_borders_and_elsewhere():
    values = torch.tensor([0.0, 0, 0, 0, 5, 5, 6, 6, 9, 9]).view(-1, 1, 1, 1)
    at, elsewhere = streaming.jumps(values, 4)
    assert at == pytest.approx((5 + 3) / 2)
    assert elsewhere == pytest.approx(1 / 6)
