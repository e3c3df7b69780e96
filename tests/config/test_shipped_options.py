"""Options files of the package, found by name from any folder."""

from pathlib import Path

import pytest

from keep.config import shipped
from keep.config.reading import load, read_yaml
from keep.config.schema import TestConfig, TrainConfig
from keep.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A present folder without options."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["tiny/stage1.yml", "options/tiny/stage1.yml", "./options/tiny/stage1.yml"])
def test_a_shipped_file_is_found_by_name(name: str) -> None:
    assert load(name, [], TrainConfig).name == "stage1"


@pytest.mark.parametrize("name", ["train/stage3_video.yml", "tiny/stage2.yml"])
def test_bases_of_shipped_files_are_found(name: str) -> None:
    assert load(name, [], TrainConfig) == load(ROOT / "options" / name, [], TrainConfig)


def test_parts_of_shipped_files_are_found() -> None:
    assert set(load("test/vfhq.yml", [], TestConfig).data) == {"mild", "medium", "heavy"}


def test_every_shipped_file_is_below_the_folder() -> None:
    expected = {p.relative_to(ROOT / "options") for p in (ROOT / "options").rglob("*.*")}
    assert {p.relative_to(shipped.FOLDER) for p in shipped.FOLDER.rglob("*.*")} == expected


@pytest.mark.parametrize("name", ["tiny/stage1.yml", "options/tiny/stage1.yml"])
def test_a_file_on_disk_wins(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("name: own\n")
    assert read_yaml(Path(name)).data == {"name": "own"}


@pytest.mark.parametrize("base", ["tiny/stage1.yml", "options/tiny/stage1.yml"])
def test_a_base_may_be_a_shipped_file(tmp_path: Path, base: str) -> None:
    (tmp_path / "own.yml").write_text(f"_base_: {base}\nname: own\nmodel:\n  net: {{_base_: {base}#model.net}}\n")
    config = load("own.yml", [], TrainConfig)
    assert (config.name, config.train.iters) == ("own", 600)


def test_a_base_beside_the_file_wins(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/stage1.yml").write_text("seed: 7\n")
    (tmp_path / "own.yml").write_text("_base_: tiny/stage1.yml\n")
    assert read_yaml(Path("own.yml")).data == {"seed": 7}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tiny/stage9.yml", "; did you mean tiny/stage3.yml or tiny/stage2.yml or tiny/stage1.yml?"),
        ("options/tiny/stage.yml", "; did you mean tiny/stage3.yml or"),
        ("xyz", "; the package has options in baselines/, degradation/, lite/, nano/, small/, test/, tiny/, train/"),
        ("../options/tiny/stage1.yml", "; did you mean"),
        ("options", "; the package has"),
        ("/nowhere/tiny/stage1.yml", "there is no such file"),
        ("tiny/../../config/shipped.py", "there is no such file"),
    ],
)
def test_what_is_nowhere_is_one_line_with_near_names(name: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        read_yaml(Path(name))
    assert str(caught.value).startswith(f"cannot read the options file {name}: there is no such file")
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_base_that_is_nowhere_has_near_names(tmp_path: Path) -> None:
    (tmp_path / "own.yml").write_text("_base_: tiny/stage9.yml\n")
    with pytest.raises(UserError, match=r"own\.yml:1: _base_: tiny/stage9\.yml: there is no such file; did you mean"):
        read_yaml(Path("own.yml"))
