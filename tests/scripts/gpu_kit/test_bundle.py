"""scripts/gpu_kit/bundle.py: a folder that runs by itself, and no larger than allowed."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from keep.config import cli
from keep.utils.errors import UserError
from scripts.gpu_kit import bundle


def wheel(folder: Path) -> Path:
    """A wheel of a module that no machine has."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "carried-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("carried.py", "value = 7\n")
        archive.writestr("carried-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr("carried-1.0.dist-info/WHEEL", kind)
        archive.writestr("carried-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    wheel(folder / "wheels")
    (folder / "faces.zip").write_bytes(b"clips")
    out = folder / "made/gpu_bundle"
    bundle.main([str(out), "--wheels", str(folder / "wheels"), "--file", f"{folder / 'faces.zip'}=datasets/faces.zip"])
    return out


def test_it_holds_the_code_the_wheels_and_the_files_but_no_media(made) -> None:
    names = {str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()}
    assert {"run.sh", "COMMIT", "datasets/faces.zip", "wheels/carried-1.0-py3-none-any.whl"} <= names
    assert {"keep/train.py", "keep/pretrained/lite.safetensors", "options/tiny/stage1.yml"} <= names
    assert {"scripts/gpu_kit/__main__.py", "tests/conftest.py", "pyproject.toml"} <= names
    assert not [name for name in names if name.startswith("tests/") and Path(name).suffix in bundle.MEDIA]
    assert not [name for name in names if name.startswith(("docs", ".git"))]


def test_its_one_line_installs_the_wheels_and_runs_the_kit(made, tmp_path) -> None:
    line = ["bash", str(made / "run.sh"), "--budget", "4800", "--out", str(tmp_path / "out"), "--device", "cpu"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHON": sys.executable}
    done = subprocess.run([*line, "--jobs", "versions"], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (made / "site/carried.py").is_file()
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"summary.json", "summary.md", "results.zip"}
    summary = (tmp_path / "out/summary.md").read_text(encoding="utf-8")
    assert (made / "COMMIT").read_text(encoding="utf-8").strip() in summary


def test_a_package_that_the_machine_lacks_is_named(made, tmp_path) -> None:
    empty = "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]; "
    code = empty + "from scripts.gpu_kit.machine import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=made, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: this machine lacks torch, torchvision,")
    assert "--package av" in done.stderr


def test_a_bundle_that_is_too_large_is_refused_with_its_largest_files(tmp_path, capsys) -> None:
    wheel(tmp_path)
    large = tmp_path / "large.zip"
    large.write_bytes(bytes(3_000_000))
    line = [str(tmp_path / "out"), "--wheels", str(tmp_path), "--file", str(large), "--most-mb", "2"]
    assert cli.run(bundle.main, line) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "more than 2; the largest files: keep/pretrained/lite.safetensors 9.9 MB, large.zip 3.0 MB" in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["carried-1.0-py3-none-any.whl", "large.zip"]


def test_an_older_bundle_is_replaced_and_another_folder_is_not(made, tmp_path) -> None:
    wheels = ["--wheels", str(wheel(tmp_path / "wheels").parent)]
    (made / "old").write_text("old", encoding="utf-8")
    bundle.main([str(made), *wheels])
    assert not (made / "old").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="exists and is no bundle"):
        bundle.main([str(tmp_path / "mine"), *wheels])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--file", "no.zip"], "there is no file no.zip"),
        (["--file", "pyproject.toml=../x"], "inside the bundle"),
        (["--wheels", "options"], "holds no .whl file"),
    ],
)
def test_mistakes_leave_nothing_behind(words, message, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(bundle.ROOT)
    assert cli.run(bundle.main, [str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_wheels_are_of_the_versions_that_are_installed(monkeypatch, tmp_path) -> None:
    commands = []

    def pip(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no matching distribution\n")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(UserError, match="ERROR: no matching distribution"):
        bundle.download(["av", "no-such-package"], "3.12", tmp_path)
    (command,) = commands
    assert command[-1] == "no-such-package"
    assert command[-2].startswith("av==")
    assert command[command.index("--python-version") + 1] == "3.12"
