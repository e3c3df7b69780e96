"""scripts/soak/videos.py: damaged files leave no traceback, no hang and no file, and get the right exit status."""

import json

from scripts.soak import videos
from scripts.soak.damage import OPERATIONS, damage
from scripts.soak.made_videos import KINDS, make_videos


def test_damage_is_the_same_for_the_same_number():
    data = bytes(range(256)) * 20
    assert damage(data, 0, 5) == damage(data, 0, 5)
    assert damage(data, 0, 5) != damage(data, 0, 6)
    assert damage(data, 0, 5) != damage(data, 1, 5)
    assert {name for n in range(100) for name in damage(data, 0, n)[1]} == set(OPERATIONS)


def test_intact_videos_are_whole(tmp_path):
    made = make_videos(tmp_path)
    assert {one.path.suffix for one in made} == set(KINDS)
    assert all(videos.count_frames(one.path) == (one.frames, 0) for one in made)


def test_intact_videos_are_the_same_every_time(tmp_path):
    """Else the same seed and number would not damage the same bytes."""
    first, second = ([one.path.read_bytes() for one in make_videos(tmp_path / name)] for name in "ab")
    assert [a == b for a, b in zip(first, second, strict=True)] == [True] * len(first)


def test_results_are_added_and_resumed(tmp_path):
    results, out = tmp_path / "results.jsonl", tmp_path / "soak.json"
    command = ["--suffix", ".webm", "--seed", "3", "--results", str(results), "--out", str(out), "--files"]
    videos.soak([*command, "22"])
    first = results.read_text()
    assert [json.loads(line)["number"] for line in first.splitlines()] == [20, 21]
    videos.soak([*command, "24"])
    assert results.read_text().startswith(first)
    assert [json.loads(line)["number"] for line in results.read_text().splitlines()] == [20, 21, 22, 23]
    assert json.loads(out.read_text())["table"][-1]["files"] == 4


def test_two_hundred_damaged_videos(tmp_path):
    """As many of them as 25 seconds allow: the complete soak is run by hand."""
    out = tmp_path / "soak.json"
    assert videos.soak(["--files", "200", "--seed", "7", "--seconds", "25", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    files = result["table"][-1]["files"]
    assert files > 0
    assert len(result["different"]) <= 1 + 0.05 * files
