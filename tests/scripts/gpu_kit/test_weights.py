"""scripts/gpu_kit/weights.py and join.py: float16, parts, hashes."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from keep.utils.errors import UserError
from scripts.gpu_kit.join import join, main
from scripts.gpu_kit.weights import LIST, PART, SOURCE, Weights, publish, to_half


def run_folder(folder: Path, scale: float, count: int = 500) -> Path:
    path = folder / SOURCE
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"a": np.full(count, scale, np.float32), "codes": np.arange(3), "large": np.full(1, 1e6, np.float32)}
    path.write_bytes(safetensors.numpy.save(tensors, {"step": str(scale)}))
    return folder


def test_weights_become_float16_where_that_holds_them(tmp_path) -> None:
    data = to_half(run_folder(tmp_path, 0.5) / SOURCE)
    tensors = safetensors.numpy.load(data)
    assert {k: v.dtype.name for k, v in tensors.items()} == {"a": "float16", "codes": "int64", "large": "float32"}
    assert (tensors["a"] == 0.5).all()
    assert b'"step":"0.5"' in data  # which network and step it is of stays in the file


def test_parts_are_small_and_join_to_the_same_bytes(tmp_path, capsys) -> None:
    assert PART <= 15e6
    content = {"a.safetensors": random.Random(0).randbytes(2500), "b.safetensors": b"x" * 700}
    publish(tmp_path, content, part=1000)
    assert sorted(p.stat().st_size for p in tmp_path.glob("weights_*")) == [200, 1000, 1000, 1000]
    assert join(tmp_path) == content
    main([str(tmp_path)])
    assert (tmp_path / "weights/a.safetensors").read_bytes() == content["a.safetensors"]
    publish(tmp_path, {"a.safetensors": b"new"}, part=1000)
    assert join(tmp_path) == {"a.safetensors": b"new"}
    assert len(list(tmp_path.glob("weights_*"))) == 1


def test_a_missing_or_damaged_part_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"there is no weights.json"):
        join(tmp_path)
    publish(tmp_path, {"a.safetensors": bytes(range(200))}, part=100)
    first, second = sorted(tmp_path.glob("weights_*"))
    intact = second.read_bytes()
    second.write_bytes(intact[:-1] + b"?")
    with pytest.raises(UserError, match=rf"{second.name} is damaged"):
        join(tmp_path)
    second.write_bytes(intact[:50])
    with pytest.raises(UserError, match=r"has 50 bytes instead of 100"):
        join(tmp_path)
    second.write_bytes(intact)
    first.unlink()
    with pytest.raises(UserError, match=rf"{first.name} is missing"):
        join(tmp_path)
    (tmp_path / LIST).write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="damaged"):
        join(tmp_path)


def test_a_list_cannot_write_outside_the_folder(tmp_path) -> None:
    publish(tmp_path, {"a.safetensors": b"1"})
    content = json.loads((tmp_path / LIST).read_text(encoding="utf-8"))
    content["files"][0]["name"] = "../../a.safetensors"
    (tmp_path / LIST).write_text(json.dumps(content), encoding="utf-8")
    assert list(join(tmp_path)) == ["a.safetensors"]


def test_the_newest_runs_are_kept_and_unchanged_ones_are_not_written_again(tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    runs = {name: run_folder(tmp_path / name, i) for i, name in enumerate(("one", "two", "three"))}
    size = len(to_half(runs["one"] / SOURCE))
    weights = Weights(out, most=2 * size + 10)
    assert weights.update({"none": tmp_path / "none"}) == []
    rows = weights.update(runs)
    assert [row["in the folder"][:3] for row in rows] == ["no:", "yes", "yes"]
    assert list(join(out)) == ["two.safetensors", "three.safetensors"]
    before = (out / LIST).stat().st_mtime_ns
    weights.update(runs)
    assert (out / LIST).stat().st_mtime_ns == before
    run_folder(tmp_path / "three", 9.0)
    weights.update(runs)
    assert (safetensors.numpy.load(join(out)["three.safetensors"])["a"] == 9).all()


def test_a_file_that_is_being_written_is_read_at_the_next_update(tmp_path) -> None:
    path = run_folder(tmp_path, 1.0) / SOURCE
    intact = path.read_bytes()
    path.write_bytes(intact[:30])
    weights = Weights(tmp_path, most=10**6)
    assert weights.update({"run": tmp_path}) == []
    path.write_bytes(intact)
    assert len(weights.update({"run": tmp_path})) == 1


def test_weights_of_an_earlier_run_of_that_name_are_not_published(tmp_path) -> None:
    path = run_folder(tmp_path, 1.0) / SOURCE
    os.utime(path, (1000, 1000))
    weights = Weights(tmp_path, most=10**6, since=2000.0)
    assert weights.update({"run": tmp_path}) == []
    run_folder(tmp_path, 2.0)
    assert len(weights.update({"run": tmp_path})) == 1
