from pathlib import Path

import numpy as np
import pytest

from keep.data.tools import prepare_copy
from keep.data.tools.prepare import prepare
from keep.data.tools.prepare_checks import image_size
from keep.data.vfhq import read_landmarks, read_meta_info
from keep.utils.pictures import encode_image

POINTS = np.array([[12.0, 15], [20, 15], [16, 20], [13, 25], [19, 25]])
NAME = "Clip+abc+P0+C1+F100-107"  # six frames


def write_clip(root: Path, name: str, frames: int = 6, size: int = 32, landmarks: Path | None = None) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    rows = []
    for n in range(frames):
        image = np.full((size, size, 3), 10 * n, np.uint8)
        (folder / f"{n:08d}.png").write_bytes(encode_image(image, "png"))
        rows.append(" ".join([f"{n:08d}.png", *map(str, (POINTS + n).ravel())]))
    if landmarks:
        landmarks.mkdir(exist_ok=True)
        (landmarks / f"{name}.txt").write_text("\n".join(["CROP 0 0 1 1", *rows]))
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, Path]:
    """(frames, landmarks) of one intact clip and one for tests to damage."""
    root, landmarks = tmp_path / "frames", tmp_path / "landmarks"
    write_clip(root, NAME, landmarks=landmarks)
    write_clip(root, "other", landmarks=landmarks)
    return root, landmarks


def run(capsys, *argv: object) -> tuple[int, str]:
    status = prepare([str(a) for a in argv])
    return status, capsys.readouterr().out


def test_a_good_tree(tree, tmp_path, capsys):
    root, landmarks = tree
    status, out = run(capsys, root, "--landmarks", landmarks, "--index", tmp_path / "list.txt")
    assert status == 0
    assert "problem" not in out.replace("without a problem", "")
    assert "note" not in out
    assert "2 clips, 12 frames; 2 clips without a problem, 12 frames" in out
    assert read_meta_info(tmp_path / "list.txt") == {NAME: 6, "other": 6}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def drop_row(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:-2]))


DAMAGES = {
    "1 frames are missing between 0 and 5: 2": lambda f, m: (f / "00000002.png").unlink(),
    "1 images cannot be read: 00000003.png": lambda f, m: cut(f / "00000003.png"),
    "1 frames are not 32x32 as the others: 00000004.png": lambda f, m: (f / "00000004.png").write_bytes(
        encode_image(np.zeros((30, 32, 3), np.uint8), "png")
    ),
    "1 frame numbers occur twice: 1": lambda f, m: (f / "00000001.jpg").write_bytes((f / "00000001.png").read_bytes()),
    "1 frames are not named by a number: cover.png": lambda f, m: (f / "00000005.png").rename(f / "cover.png"),
    "2 frames have no landmark row: 00000004.png, 00000005.png": lambda f, m: drop_row(m / "other.txt"),
    "has no landmarks": lambda f, m: (m / "other.txt").unlink(),
    "not a landmark row": lambda f, m: (m / "other.txt").write_text("00000000.png 1 2 3"),
    "all five points are outside the frame in 6 frames": lambda f, m: (m / "other.txt").write_text(
        (m / "other.txt").read_text().replace("png ", "png 9")
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_each_problem_is_named_and_the_clip_is_not_listed(message, tree, tmp_path, capsys):
    root, landmarks = tree
    DAMAGES[message](root / "other", landmarks)
    if message.startswith("all five"):
        rows = [f"{n:08d}.png " + " ".join(["900"] * 10) for n in range(6)]
        (landmarks / "other.txt").write_text("\n".join(rows))
    status, out = run(capsys, root, "--landmarks", landmarks, "--index", tmp_path / "list.txt")
    assert status == 1
    problems = [line for line in out.splitlines() if line.startswith("problem: other: ")]
    assert any(message in line for line in problems), out
    assert read_meta_info(tmp_path / "list.txt") == {NAME: 6}


def test_oddities_are_notes(tree, capsys):
    root, landmarks = tree
    (root / "other/readme.doc").touch()
    (landmarks / "nobody.txt").touch()
    (root / NAME / "00000005.png").unlink()
    status, out = run(capsys, root, "--landmarks", landmarks)
    assert status == 0
    assert "note: other: 1 files are no frames: readme.doc" in out
    assert f"note: {NAME}: has 5 frames, by its name 6" in out
    assert "note: 1 landmark files belong to no clip: nobody" in out


def test_unusual_sizes_are_notes(tmp_path, capsys):
    folder = write_clip(tmp_path / "frames", "odd", size=31)
    assert "an odd side" in run(capsys, tmp_path / "frames")[1]
    for path in folder.iterdir():
        path.write_bytes(encode_image(np.zeros((32, 48, 3), np.uint8), "png"))
    assert "48x32, not square" in run(capsys, tmp_path / "frames")[1]


def test_the_list_of_clips(tree, tmp_path, capsys):
    root, _ = tree
    (tmp_path / "list.txt").write_text(f"{NAME}/7\ngone/6\n")
    status, out = run(capsys, root, "--meta-info", tmp_path / "list.txt")
    assert status == 1
    assert f"problem: {NAME}: has 6 frames, but 7 in the list of clips" in out
    assert "problem: gone: is in the list of clips, but has no folder" in out
    assert "note: other: is not in the list of clips" in out


def test_fast_reads_headers_only(tree, capsys):
    root, _ = tree
    path = root / "other/00000003.png"
    cut(path)  # the header is intact
    assert run(capsys, root, "--fast")[0] == 0
    assert run(capsys, root)[0] == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_smaller_copy(workers, tree, tmp_path, capsys):
    root, landmarks = tree
    (root / "other/00000003.png").write_bytes(b"no image")
    out = tmp_path / "small"
    argv = [root, "--landmarks", landmarks, "--out", out, "--size", 16, "--workers", workers]
    assert run(capsys, *argv)[0] == 1
    assert read_meta_info(out / "meta_info.txt") == {NAME: 6}
    frames = sorted((out / "frames" / NAME).iterdir())
    assert [f.name for f in frames] == [f"{n:08d}.png" for n in range(6)]
    assert {image_size(f, False) for f in frames} == {(16, 16)}
    points = read_landmarks(out / "landmarks" / f"{NAME}.txt", [f.name for f in frames], (16, 16))
    np.testing.assert_allclose(points[2], (POINTS + 2 + 0.5) / 2 - 0.5, atol=1e-3)
    assert not (out / "frames/other").exists()

    before = {f: f.stat().st_mtime_ns for f in frames}
    assert run(capsys, *argv)[0] == 1
    assert {f: f.stat().st_mtime_ns for f in frames} == before, "complete clips are skipped"


def test_a_copy_that_was_interrupted_leaves_no_folder(tree, tmp_path, monkeypatch):
    root, _ = tree
    written = []

    def stop(path, data):
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr(prepare_copy, "write_file", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare([str(root), "--out", str(tmp_path / "small"), "--size", "16"])
    assert [p.name for p in (tmp_path / "small/frames").iterdir() if not p.name.startswith(".")] == []


def test_bad_arguments(tree, tmp_path):
    from keep.utils.errors import UserError

    root, _ = tree
    (tmp_path / "empty").mkdir()
    for argv, message in (
        ([tmp_path / "none"], "no such folder"),
        ([tmp_path / "empty"], "holds no folders of images"),
        ([root, "--landmarks", tmp_path / "none"], "no such folder"),
        ([root, "--size", 15], "must be even"),
        ([root, "--out", root.parent], "choose another folder"),
    ):
        with pytest.raises(UserError, match=message):
            prepare([str(a) for a in argv])
