import json
import math
import time

import numpy as np
import pytest
import torch

from keep.evaluation.evaluate import ClipResult, ClipScore, Failure
from keep.evaluation.report import records
from keep.evaluation.report.records import Unit


def unit(folder, key="k", clip="a/b c%"):
    return Unit("mild", 2, clip, key, folder)


def result():
    values = np.array([1.5, math.nan, math.inf])
    score = ClipScore("a/b c%", "r/1", 2, 3, {"PSNR": values}, {"PSNR": math.inf}, {"PSNR": 1},
                      {"FVD\t1": (np.eye(2), np.ones((1, 2)))})  # fmt: skip
    gains = {"r/1": np.array([[[np.nan]], [[0.25]], [[0.5]]], np.float32)}
    return ClipResult(2, "a/b c%", [score], [Failure("x", None, "no")], {}, gains)


SAMPLE = {"gt": torch.zeros(3, 3, 4, 5, dtype=torch.uint8), "name": "a/b c%", "degradation": '[{"type": "blur"}]'}


def test_a_record_reads_back_as_it_was(tmp_path):
    one = unit(tmp_path)
    one.write(records.record_of(one, SAMPLE, result(), {"wanted": {}}), records.samples_of(result()))
    record = one.read()
    assert record is not None
    assert json.loads(one.path("clips", ".json").read_text())["restorers"]["r/1"]["gain"] == [None, 0.25, 0.5]
    table = records.table_of([(one, record)], ["r/1", "x"])
    (score,) = table.scores
    expected = result().scores[0]
    np.testing.assert_array_equal(score.per_frame["PSNR"], expected.per_frame["PSNR"])
    assert score.scores == expected.scores
    assert score.missing == {"PSNR": 1}
    np.testing.assert_array_equal(score.samples["FVD\t1"][0], np.eye(2))
    assert table.failures == [("a/b c%", Failure("x", None, "no"))]


def test_a_record_with_another_key_or_cut_short_is_none(tmp_path):
    one = unit(tmp_path)
    assert one.read() is None
    one.write({"failures": []}, {})
    assert one.read() == {"key": "k", "restorers": {}, "failures": []}
    assert unit(tmp_path, key="other").read() is None
    path = one.path("clips", ".json")
    path.write_bytes(path.read_bytes()[:-5])
    assert one.read() is None


def test_the_bytes_do_not_depend_on_the_clock(tmp_path, monkeypatch):
    one, two = unit(tmp_path / "1"), unit(tmp_path / "2")
    one.write(records.record_of(one, SAMPLE, result(), None), records.samples_of(result()))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e6)
    two.write(records.record_of(two, SAMPLE, result(), None), records.samples_of(result()))
    for suffix in (".json", ".npz"):
        assert one.path("clips", suffix).read_bytes() == two.path("clips", suffix).read_bytes()


@pytest.mark.parametrize("names", [("a/b", "a%2Fb", "a_b"), ("..", ".", "a.", "%2E"), ("ü", "u", "U ")])
def test_file_names_are_names_and_stay_different(tmp_path, names):
    found = {records.file_name(n) for n in names}
    assert len(found) == len(names)
    for name in found:
        assert name not in (".", "..")
        (tmp_path / name).write_text("")
        assert (tmp_path / name).parent.resolve() == tmp_path.resolve()


def test_of_a_record_only_the_parts_with_the_restorers_keys_are_read(tmp_path):
    one = Unit("mild", 2, "a/b c%", "k", tmp_path, {"r/1": "k1", "x": "kx"})
    one.write(records.record_of(one, SAMPLE, result(), {"wanted": 1}), records.samples_of(result()))
    assert (one.read() or {})["restorers"].keys() == {"r/1"}
    other = Unit("mild", 2, "a/b c%", "k", tmp_path, {"r/1": "new", "x": "kx"}).read()
    assert other is not None
    assert other["restorers"] == {}
    assert [f["restorer"] for f in other["failures"]] == ["x"]
    gone = Unit("mild", 2, "a/b c%", "k", tmp_path, {"r/1": "k1"}).read()
    assert gone is not None
    assert (gone["restorers"].keys(), gone["failures"]) == ({"r/1"}, [])


def record(*failures: tuple[str, bool], launch: str | None = None, restorers: str = "ab", videos: str = "") -> dict:
    found = {
        "restorers": {name: {} for name in restorers}, "media": {"wanted": {"videos": list(videos)}},
        "failures": [{"restorer": name, "lasting": lasting} for name, lasting in failures],
    }  # fmt: skip
    return found if launch is None else {**found, "launch": launch}


@pytest.mark.parametrize(
    ("found", "videos", "left", "settled"),
    [
        (None, "", ["a", "b"], False),
        (record(), "", [], True),
        (record(restorers="a"), "", ["b"], False),
        (record(), "ab", ["a", "b"], False),
        (record(restorers="a", videos="ab"), "ab", ["a", "b"], False),
        (record(("b", True)), "", [], True),  # no face: it will not find one
        (record(("b", False), launch="before"), "", ["b"], False),  # another rank is to try it again
        (record(("b", False), launch="now"), "", ["b"], True),  # it has
    ],
)
def test_who_is_left_to_do_and_who_is_waited_for(monkeypatch, found, videos, left, settled):
    monkeypatch.setenv("KEEP_LAUNCH", "now")
    assert records.pending_restorers(found, {"videos": list(videos)}, ["a", "b"]) == left
    assert records.settled(found, {"videos": list(videos)}, ["a", "b"]) == settled
