from pathlib import Path

import pytest
import torch

from keep.config.registry import DATASETS
from keep.data.tools.pack import main


@pytest.mark.parametrize("more", [[], ["--codec", "ffv1", "--size", "40"]])
def test_a_packed_folder_gives_the_same_samples(clips: Path, tmp_path: Path, more: list[str], capsys) -> None:
    out = tmp_path / "clips.zip"
    assert main([str(clips), str(out), *more]) == 0
    assert "2 clips, 24 frames" in capsys.readouterr().out
    options = {"size": 40, "clip_length": 3}
    one, two = DATASETS["VideoClips"](str(clips), **options), DATASETS["PackedClips"](str(out), **options)
    for i in range(3):
        a, b = one[0, i], two[0, i]
        assert a["name"] == b["name"]
        assert torch.equal(a["gt"], b["gt"])


def test_a_wrong_command_line_is_reported_in_one_line(clips: Path, tmp_path: Path, capsys) -> None:
    assert main([str(clips), str(tmp_path / "x.zip"), "--codec", "libx266"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: argument --codec: invalid choice: 'libx266' (choose from ")
    assert len(message.splitlines()) == 1


def test_no_such_folder(tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "x.zip")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_an_existing_file_is_replaced_only_where_asked(clips: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "x.zip"
    out.write_bytes(b"mine")
    assert main([str(clips), str(out)]) == 2
    assert "x.zip exists already: name another output, or replace it with --overwrite" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"
    assert main([str(clips), str(out), "--overwrite"]) == 0
    assert "2 clips" in capsys.readouterr().out
    assert main([str(clips / "nowhere"), str(clips)]) == 2
    file = next(path for path in clips.rglob("*") if path.is_file())
    assert main([str(file), str(tmp_path / "y.zip")]) == 2
    assert f"{file}: is a file, not a folder of clips" in capsys.readouterr().err
