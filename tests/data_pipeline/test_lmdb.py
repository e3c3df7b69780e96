from pathlib import Path

import cv2
import numpy as np
import pytest

from keep.data.lmdb import LMDBClips
from keep.data.sampler import make_loader
from keep.utils.errors import UserError

lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")


def write(root: Path, images: dict[str, np.ndarray], named: list[str] | None = None) -> Path:
    """BasicSR's layout: key → encoded image; a line a key in meta_info.txt."""
    with lmdb.open(str(root), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, image in images.items():
            transaction.put(key.encode(), cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    lines = [f"{key}.png (48,64,3) 1\n" for key in named or images]
    (root / "meta_info.txt").write_text("".join(lines))
    return root


@pytest.fixture
def clips(tmp_path: Path, texture) -> Path:
    frames = {f"{n:03d}/{t:08d}": f for n in range(2) for t, f in enumerate(texture(9 + n, seed=n))}
    return write(tmp_path / "clips.lmdb", frames)


def test_clips_are_read_in_order(clips: Path, texture) -> None:
    dataset = LMDBClips(str(clips), size=48)
    assert [(c.name, c.frames) for c in dataset.clips] == [("000", 9), ("001", 10)]
    expected = texture(10, seed=1)[:, :, 8:56]
    assert np.array_equal(dataset[0, 1]["gt"].permute(0, 2, 3, 1).numpy(), expected)
    assert np.array_equal(dataset.read(dataset.clips[1], 2, 3, 3), texture(10, seed=1)[2:9:3])


def test_workers_open_their_own(clips: Path) -> None:
    dataset = LMDBClips(str(clips), clip_length=4, size=16)
    expected = [b["gt"] for b in make_loader(dataset, 0, 2, stop=4)]
    found = [b["gt"] for b in make_loader(dataset, 0, 2, stop=4, workers=2)]
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_keys_without_a_slash_are_single_images(tmp_path: Path, texture) -> None:
    root = write(tmp_path / "ffhq.lmdb", {f"{t:08d}": f for t, f in enumerate(texture(3))})
    dataset = LMDBClips(str(root), clip_length=1, size=48)
    assert [(c.name, c.frames) for c in dataset.clips] == [(f"{t:08d}", 1) for t in range(3)]
    assert dataset[0, 0]["gt"].shape == (1, 3, 48, 48)


def test_what_is_missing_is_named(tmp_path: Path, texture) -> None:
    frames = dict(zip(["a/0", "a/1"], texture(2), strict=True))
    root = write(tmp_path / "x.lmdb", frames, named=["a/0", "a/1", "a/2"])
    with pytest.raises(UserError, match=r"x\.lmdb: meta_info.txt names a/2, but data.mdb has no such key"):
        LMDBClips(str(root), size=48)[0, 0]
    (root / "data.mdb").write_text("no database")
    with pytest.raises(UserError, match=r"x\.lmdb: not an LMDB"):
        LMDBClips(str(root), size=48)[0, 0]
    (root / "meta_info.txt").unlink()
    with pytest.raises(UserError, match=r"meta_info\.txt: no such file; expected a folder with data.mdb"):
        LMDBClips(str(root))
