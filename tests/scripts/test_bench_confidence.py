"""scripts/bench/confidence.py: its table, and its shares. What it measures is not asserted."""

import numpy as np
import pytest
from networks import TINY, tiny

from keep.archs.confidence import ConfidenceHead
from keep.data.video_io import write_video
from keep.inference.confidence import network_hash, path_of, save_confidence
from keep.inference.weights import save_safetensors
from scripts.bench import confidence


def test_table(tmp_path, capsys):
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    write_video(tmp_path / "clip.mkv", frames, fps=25, codec="ffv1")
    path, arch = tmp_path / "tiny.safetensors", {"type": "KEEP", **TINY, "temporal": "causal", "flow": {"type": "dis"}}
    save_safetensors(tiny(temporal="causal"), path, arch)
    head = {"type": "ConfidenceHead", "width": 8, "layers": 2}
    save_confidence(ConfidenceHead(width=8, layers=2), head, path_of(path), network_hash(path), {})
    confidence.bench([str(tmp_path / "clip.mkv"), "-w", str(path), "--frames", "2", "--rounds", "1"])
    printed = capsys.readouterr().out
    for text in ("2 frames", "| without |", "| with |", "| evidence and error model |"):
        assert text in printed


def test_shares_are_of_the_same_round():
    times = np.array([[[100, 0], [110, 10]], [[200, 0], [210, 20]], [[400, 0], [440, 30]]], float)
    plain, full = confidence.rows(times)
    assert list(plain.values()) == ["without", 200]
    assert list(full.values()) == ["with", 210, 20, pytest.approx(10), pytest.approx(10)]
