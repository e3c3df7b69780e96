import re

import pytest
import torch

from keep.faces import files
from keep.utils.errors import UserError


def test_every_published_file_has_a_whole_hash():
    for name, (folder, sha256) in files.PUBLISHED.items():
        assert re.fullmatch("[0-9a-f]{64}", sha256), name
        assert folder.startswith("https://")


def test_weights_come_from_the_given_file_else_by_hash(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(files, "fetch", lambda *args: asked.append(args) or tmp_path / "fetched")
    (tmp_path / "mine.pth").touch()
    assert files.weights_file("parsing_parsenet.pth", tmp_path / "mine.pth") == tmp_path / "mine.pth"
    assert asked == []
    assert files.weights_file("parsing_parsenet.pth", cache=tmp_path) == tmp_path / "fetched"
    url, sha256, name, cache = asked[0]
    assert url == "https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth"
    assert (sha256, name, cache) == (files.PUBLISHED[name][1], "parsing_parsenet.pth", tmp_path)


def test_state_dict_layouts(tmp_path):
    x = torch.ones(2)
    for layout in ({"a": x}, {"module.a": x}, {"state_dict": {"module.a": x}, "epoch": 3}):
        torch.save(layout, tmp_path / "w.pth")
        assert list(files.state_dict(tmp_path / "w.pth")) == ["a"]
    torch.save([1], tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds a list, not the weights of a network"):
        files.state_dict(tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(b"no")
    with pytest.raises(UserError, match="is not a checkpoint"):
        files.state_dict(tmp_path / "w.pth")


def test_a_missing_package_says_how_to_install_it():
    with pytest.raises(UserError, match="pip install --no-deps facexlib"):
        files.facexlib("no_such_module")
    with pytest.raises(UserError, match=r"pip install keep-vfsr\[dlib\]"):
        files.package_folder("no_such_package_at_all", "keep-vfsr[dlib]")
