import json
import math
import time

import numpy as np
import pytest
import torch

from keep.evaluate import ClipResult, ClipScore, Failure
from keep.report import records
from keep.report.records import Unit


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
    assert json.loads(one.place("clips", ".json").read_text())["restorers"]["r/1"]["gain"] == [None, 0.25, 0.5]
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
    assert one.read() == {"key": "k", "failures": []}
    assert unit(tmp_path, key="other").read() is None
    path = one.place("clips", ".json")
    path.write_bytes(path.read_bytes()[:-5])
    assert one.read() is None


def test_the_bytes_do_not_depend_on_the_clock(tmp_path, monkeypatch):
    one, two = unit(tmp_path / "1"), unit(tmp_path / "2")
    one.write(records.record_of(one, SAMPLE, result(), None), records.samples_of(result()))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e6)
    two.write(records.record_of(two, SAMPLE, result(), None), records.samples_of(result()))
    for suffix in (".json", ".npz"):
        assert one.place("clips", suffix).read_bytes() == two.place("clips", suffix).read_bytes()


@pytest.mark.parametrize("names", [("a/b", "a%2Fb", "a_b"), ("..", ".", "a.", "%2E"), ("ü", "u", "U ")])
def test_file_names_are_names_and_stay_different(tmp_path, names):
    found = {records.file_name(n) for n in names}
    assert len(found) == len(names)
    for name in found:
        assert name not in (".", "..")
        (tmp_path / name).write_text("")
        assert (tmp_path / name).parent.resolve() == tmp_path.resolve()


def test_hashes_of_every_file_in_nested_options(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"x")
    found = records.file_hashes([{"a": (tmp_path / "net.pth",), "b": tmp_path / "none.pth"}, 3])
    assert list(found) == [str(tmp_path / "net.pth")]
    assert found[str(tmp_path / "net.pth")].startswith("2d711642")


def test_the_authors_weights_are_known_by_the_digits_of_their_name():
    from pathlib import Path

    assert records.file_hashes(Path("KEEP")) == {"KEEP": "b76feb75"}
