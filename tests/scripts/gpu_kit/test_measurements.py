"""The jobs of the GPU kit that measure, and its command line."""

import json
from pathlib import Path

import pytest

from keep.config import cli
from keep.utils.errors import UserError
from scripts.gpu_kit import __main__ as kit
from scripts.gpu_kit import parity, plan, tests, versions


def rows(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def test_versions_are_listed(tmp_path) -> None:
    versions.main(["--out", str(tmp_path)])
    found = {row["what"]: row["version"] for row in rows(tmp_path / "versions.json")}
    assert found["torch"][0].isdigit()
    assert found["pytest"][0].isdigit()
    assert {"commit", "CPU", "cores", "python"} <= found.keys()


def test_parity_compares_every_precision_with_float32_on_the_cpu(tmp_path) -> None:
    parity.main(["--device", "cpu", "--frames", "2", "--out", str(tmp_path)])
    exact, half = rows(tmp_path / "parity.json")
    assert (exact["dtype"], exact["max abs error"], exact["PSNR, dB"]) == ("float32", 0.0, 100.0)
    assert half["dtype"] == "bfloat16"
    assert 35 <= half["PSNR, dB"] < 100


def test_each_test_has_a_row_with_its_result(tmp_path) -> None:
    file = tmp_path / "test_made.py"
    file.write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert 1 == 2, 'one is not two'\n"
        "@pytest.mark.skip(reason='no such card')\n"
        "def test_skips(): pass\n",
        encoding="utf-8",
    )
    assert pytest.main(["-p", "no:cacheprovider", str(file)], plugins=[tests.Rows(tmp_path / "tests.json")]) == 1
    found = {row["test"].rpartition("::")[2]: row for row in rows(tmp_path / "tests.json")}
    assert {k: row["result"] for k, row in found.items()} == {
        "test_passes": "passed", "test_fails": "failed", "test_skips": "skipped",
    }  # fmt: skip
    assert "one is not two" in found["test_fails"]["reason"]
    assert "no such card" in found["test_skips"]["reason"]


def test_limits_follow_the_budget_and_every_job_can_be_chosen() -> None:
    jobs = plan.measurements("cuda", "released")
    half = plan.choose(jobs, None, plan.FULL / 2)
    assert [j.seconds for j in half] == [(j.seconds or 0) / 2 for j in jobs]
    assert sum(j.seconds or 0 for j in jobs) < plan.FULL - 60  # something is left for training
    assert [j.name for j in plan.choose(jobs, ["norm", "versions"], plan.FULL)] == ["versions", "norm"]
    with pytest.raises(UserError, match=r"no such job; did you mean 'parity'"):
        plan.choose(jobs, ["parit"], plan.FULL)


def test_results_of_another_run_are_not_overwritten(tmp_path) -> None:
    (tmp_path / "summary.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="holds the results of another run"):
        kit.main(["--budget", "60", "--out", str(tmp_path), "--device", "cpu", "--jobs", "versions"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "10"], "must be more than the margin"),
        (["--budget", "60", "--train", "no.yml"], "no.yml: no such options file"),
        (["--budget", "60", "--jobs"], "nothing to do"),
        (["--budget", "60", "--train", "options/tiny/stage1.yml", "--shares", "1", "2"], "for each of the 1 files"),
        (["--budget", "60", "--train", "options/tiny/stage1.yml", "--set", "stage2:name=x"], "did you mean 'stage1'"),
        (["--budget", "60", "--train", "options/tiny/stage1.yml", "--set", "train.iter=3"], "did you mean 'iters'"),
    ],
)
def test_mistakes_are_reported_before_the_first_job(words, message, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(Path(kit.__file__).parents[2])
    assert cli.run(kit.main, [*words, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
