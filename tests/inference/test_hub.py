"""Models in folders and on the Hugging Face hub: saved, loaded, named by address; nothing here uses a network."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from networks import TINY

import keep
from keep import KEEP
from keep.config.reading import load
from keep.config.registry import ARCHS
from keep.config.schema import TrainConfig
from keep.inference import publish
from keep.inference.api import load_restorer
from keep.inference.model_card import without_folders
from keep.inference.weights import read, save_safetensors
from keep.training.pretrained import load_pretrained
from keep.utils import hub, weight_files
from keep.utils.downloads import sha256
from keep.utils.errors import UserError

ARCH = {"type": "KEEP", **TINY, "temporal": "causal", "flow": "dis"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
RUN = {
    "version": "0.0.9",
    "step": 260,
    "options": {
        "name": "stage3", "seed": 5, "model": {"type": "VideoModel"}, "train": {"iters": 300},
        "data": {"train": {"type": "VideoClips", "root": "/home/someone/faces"}, "clips_per_step": 2},
    },
    "pretrained": {"keep": "ab" * 32},
}  # fmt: skip


def network() -> Any:
    torch.manual_seed(0)
    return ARCHS.spec(ARCH).build()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as a training writes it: ``params`` and the record of the run."""
    path = tmp_path_factory.mktemp("run") / "net_latest.pth"
    weight_files.save(path, {"params": network().state_dict(), "arch": ARCH, **RUN})
    return path


@pytest.fixture(scope="module")
def folder(checkpoint: Path) -> Path:
    """The same network as a folder for the hub."""
    return KEEP.from_pretrained(checkpoint).save_pretrained(checkpoint.with_name("my_model"), licence="cc-by-nc-4.0")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """huggingface_hub with its offline switch on."""
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    library = hub.import_library("this test")
    monkeypatch.setattr(library.constants, "HF_HUB_OFFLINE", True)
    return library


@pytest.fixture
def cache(library: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with the model ``org/name``; its revision ``v2`` has the same files."""
    model = tmp_path / "hub/models--org--name"
    (model / "refs").mkdir(parents=True)
    for revision in ("main", "v2"):
        (model / "refs" / revision).write_text(COMMIT)
    shutil.copytree(folder, model / "snapshots" / COMMIT)
    monkeypatch.setattr(library.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


# --- folders ----------------------------------------------------------------------------------------------------


def test_a_folder_has_weights_options_and_card_and_loads_as_the_same_network(checkpoint: Path, folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    net = KEEP.from_pretrained(folder)
    assert isinstance(net, keep.KEEP)
    assert not net.training
    assert equal(net, KEEP.from_pretrained(checkpoint))
    assert net.about == without_folders(RUN)
    assert json.loads((folder / "config.json").read_text())["arch"]["image_size"] == 32


def test_a_folder_is_a_weight_file_for_every_loader(folder: Path) -> None:
    assert read(folder).path == folder / "model.safetensors"
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    assert [f.shape for f in load_restorer(folder, "cpu").restore(frames)] == [(32, 32, 3)] * 2


def test_half_is_half_as_large(folder: Path, tmp_path: Path) -> None:
    half = KEEP.from_pretrained(folder).save_pretrained(tmp_path / "half", half=True) / "model.safetensors"
    assert half.stat().st_size < 0.7 * (folder / "model.safetensors").stat().st_size
    assert next(KEEP.from_pretrained(half.parent).parameters()).dtype == torch.float32


@pytest.mark.parametrize("load", [KEEP.from_pretrained, load_restorer, read])
def test_an_edited_config_is_refused(folder: Path, tmp_path: Path, load: Callable[[Path], object]) -> None:
    shutil.copytree(folder, tmp_path / "edited")
    path = tmp_path / "edited/config.json"
    path.write_text(path.read_text().replace('"causal"', '"clip"'))
    with pytest.raises(UserError, match=r"another network than the weights: temporal is causal in the weights and"):
        load(tmp_path / "edited")
    path.write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not the config\.json of a model"):
        load(tmp_path / "edited")


def test_shipped_weights_have_the_methods_too() -> None:
    assert KEEP.from_pretrained("nano").image_size == 128


def test_a_revision_of_a_local_file_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"revision: .* is on this machine"):
        KEEP.from_pretrained(folder, revision="v2")


def test_no_written_file_names_a_folder_or_a_tracker(checkpoint: Path, tmp_path: Path) -> None:
    net = KEEP.from_pretrained(checkpoint)
    net.about = RUN | {
        "options": {
            "root": "/home/someone/runs",
            "data": {"train": {"root": "/secret/faces"}},
            "log": {"interval": 1, "trackers": [{"type": "MLflow", "uri": "https://me:word@server"}]},
        }
    }
    folder = net.save_pretrained(tmp_path / "model")
    for file in folder.iterdir():
        content = file.read_bytes()
        assert not any(word in content for word in (b"someone", b"secret", b"trackers", b"server")), file
    assert KEEP.from_pretrained(folder).about["options"]["data"] == {"train": {"root": "faces"}}


# --- the card ---------------------------------------------------------------------------------------------------


def test_the_card_says_what_the_run_recorded(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "cc-by-nc-4.0"
    assert "run `stage3`, seed 5" in body
    assert "260 of 300 steps of 2 clips" in body
    assert f"started from: keep, sha256 {'ab' * 32}" in body
    assert "root: faces" in body
    assert "/home/someone" not in body  # absolute paths say much of a machine
    assert f"Trained with KEEP 0.0.9; written by {keep.__version__}." in body
    assert "Not measured." in body


def test_the_card_has_the_scores_of_these_weights(checkpoint: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "table.md").write_text("# test\n\n## mild\n\n| KEEP | 25.24 … 26.56 |\n")
    (results / "results.json").write_text(json.dumps({"files": {"net.pth": sha256(checkpoint)}}))
    net = KEEP.from_pretrained(checkpoint)
    card = (net.save_pretrained(tmp_path / "model", results=results) / "README.md").read_text()
    assert "## Scores\n\n### mild\n\n| KEEP | 25.24 … 26.56 |" in card

    (results / "results.json").write_text(json.dumps({"files": {"other.pth": "00"}}))
    with pytest.raises(UserError, match=r"the scores are not of .*net_latest\.pth; files of that test: other\.pth"):
        net.save_pretrained(tmp_path / "model2", results=results)
    assert not (tmp_path / "model2").exists()


def test_weights_without_a_record_say_so(tmp_path: Path) -> None:
    save_safetensors(network(), tmp_path / "net.safetensors", ARCH)
    card = KEEP.from_pretrained(tmp_path / "net.safetensors").save_pretrained(tmp_path / "model") / "README.md"
    assert card.read_text().count("The weight file does not record it.") == 2
    assert "Not stated: ask the author" in card.read_text()


# --- the hub ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("hf://org/name", hub.Address("org/name")),
        (Path("hf://org/name"), hub.Address("org/name")),  # options of paths lose a slash
        ("hf://org/name@refs/pr/1", hub.Address("org/name", revision="refs/pr/1")),
        ("hf://org/name/models/net.pth@v2", hub.Address("org/name", "models/net.pth", "v2")),
        ("org/name", None),
    ],
)
def test_addresses(name: str | Path, address: hub.Address | None) -> None:
    assert hub.parse(name) == address
    assert address is None or hub.parse(str(address)) == address


@pytest.mark.parametrize("name", ["hf://name", "hf://org/name@", "hf://a b/c", "hf:/"])
def test_what_is_no_address_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="expected hf://ORG/NAME"):
        hub.parse(name)


def test_offline_models_come_from_the_cache(cache: Path, folder: Path) -> None:
    expected = KEEP.from_pretrained(folder)
    for source, revision in (("org/name", None), ("org/name", "v2"), ("hf://org/name@v2", None), ("org/name", COMMIT)):
        assert equal(KEEP.from_pretrained(source, revision=revision), expected)
    assert read(Path("hf://org/name")).path.is_relative_to(cache)
    assert load_restorer("hf://org/name", "cpu").net.image_size == 32


def test_a_file_beside_the_present_folder_wins_over_the_hub(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "org/name")
    assert KEEP.from_pretrained("org/name").source == Path("org/name/model.safetensors")


@pytest.mark.parametrize("name", ["hf://org/other", "hf://org/name@v9", "hf://org/name/none.pth"])
def test_what_is_not_in_the_cache_is_one_line_when_offline(cache: Path, name: str) -> None:
    with pytest.raises(UserError) as error:
        read(name)
    assert str(error.value).startswith(f"{name} is not in the cache {cache}, and HF_HUB_OFFLINE is set: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RepositoryNotFoundError", "there is no such model on the hub, or it is private"),
        ("GatedRepoError", "its owner grants access"),
        ("RevisionNotFoundError", "the model has no revision 'v2'"),
        ("EntryNotFoundError", r"the model has no file model\.safetensors"),
        ("LocalEntryNotFoundError", "and the hub cannot be reached"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    library: Any, monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    error = getattr(library.errors, kind)

    def refuse(*args: Any, **options: Any) -> str:
        raise error.__new__(error)

    monkeypatch.setattr(library.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(library, "hf_hub_download", refuse)
    with pytest.raises(UserError, match=message):
        read("hf://org/name@v2")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r'hf://org/name needs .*: pip install "keep-vfsr\[hub\]"$'):
        read("hf://org/name")


def test_a_training_starts_from_the_hub(tiny: Any, cache: Path, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = {k: list(v) if isinstance(v, tuple) else v for k, v in ARCH.items()}
    path, overrides = tiny(3, "pretrained.keep=hf://org/name@v2", f"model.net={json.dumps(net)}")
    config = load(path, overrides, TrainConfig)
    recipe = config.model.build()
    with caplog.at_level("INFO", "keep"):
        files = load_pretrained(recipe, config)
    assert files == {"keep": sha256(folder / "model.safetensors")}
    assert "of hf://org/name@v2, sha256" in caplog.text
    with pytest.raises(UserError, match=r"^pretrained\.keep: hf://org/other is not in the cache"):
        load_pretrained(recipe, load(path, [*overrides, "pretrained.keep=hf://org/other"], TrainConfig))


# --- uploads ----------------------------------------------------------------------------------------------------


class FakeApi:
    """Records calls, and the files that are uploaded."""

    def __init__(self, calls: list[Any], **options: Any) -> None:
        self.calls = calls

    def create_repo(self, repo: str, **options: Any) -> None:
        self.calls.append(("repo", repo, options["private"]))

    def create_branch(self, repo: str, *, branch: str, **options: Any) -> None:
        self.calls.append(("branch", branch))

    def upload_folder(self, *, repo_id: str, folder_path: str, revision: str | None, **options: Any) -> Any:
        if repo_id == "org/full":
            raise ConnectionError("no network\nlong story")
        self.calls.append((sorted(p.name for p in Path(folder_path).iterdir()), revision))
        self.calls.append(Path(folder_path, "README.md").read_text())
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/1")


@pytest.fixture
def calls(library: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(library, "HfApi", lambda **options: FakeApi(calls, **options))
    return calls


def test_publish_uploads_the_folder(calls: list[Any], checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish.main([str(checkpoint), "hf://org/name@v3", "--licence", "mit", "--private"]) == 0
    assert calls[:2] == [("repo", "org/name", True), ("branch", "v3")]
    assert calls[2] == (["README.md", "config.json", "model.safetensors"], "v3")
    assert "-w hf://org/name" in calls[3]
    assert capsys.readouterr().out == "uploaded https://hub/org/name/1\n"


def test_publish_writes_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    assert publish.main([str(checkpoint), str(tmp_path / "model")]) == 0
    assert KEEP.from_pretrained(tmp_path / "model").about["step"] == 260


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_publish_replaces_no_file_unasked(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_text("of the user")
    (tmp_path / "notes.txt").write_text("other files do not matter")
    assert publish.main([str(checkpoint), str(tmp_path)]) == 2
    existing = f"error: {tmp_path / name} exists already: name another output, or replace it with --overwrite\n"
    assert capsys.readouterr().err == existing
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([name, "notes.txt"])
    assert publish.main([str(checkpoint), str(tmp_path), "--overwrite"]) == 0
    assert b"of the user" not in (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/someone/faces", "faces"),
        ("~/faces", "faces"),
        ("file:///home/someone/my%20faces", "my faces"),
        ("FILE://server/home/faces", "faces"),
        ("file:/C:/Users/someone/faces", "faces"),
        (r"C:\Users\someone\faces", "faces"),
        ("d:/someone/faces/", "faces"),
        (r"\\server\someone\faces", "faces"),
        (r"\\?\C:\Users\someone\faces", "faces"),
        ("datasets/faces", "datasets/faces"),
        ("hf://org/name", "hf://org/name"),
        ("http://host/a", "http://host/a"),
        ("http://me:word@host/a", "http://host/a"),
        ("a:b", "a:b"),
        (5, 5),
    ],
)
def test_no_folder_of_this_machine_is_published(value: Any, shown: Any) -> None:
    assert without_folders({"a": [value, (value,)]}) == {"a": [shown, [shown]]}


def test_a_failed_upload_is_one_line(calls: list[Any], checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish.main([str(checkpoint), "hf://org/full"]) == 2
    assert capsys.readouterr().err == "error: org/full: cannot upload: no network\n"
    with pytest.raises(UserError, match="name: expected ORG/NAME"):
        KEEP.from_pretrained(checkpoint).push_to_hub("name")
