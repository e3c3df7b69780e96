import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from keep.data.clips import FrameFolders, ImageFolder, VideoClips
from keep.data.packed import PackedClips, pack_clips
from keep.data.sampler import make_loader
from keep.data.timeline import read_timeline
from keep.data.video_io import probe
from keep.degradation.noise import GaussianNoise
from keep.utils.errors import UserError


def test_copied_clips_are_those_of_the_folder(clip_folder: Path, tmp_path: Path) -> None:
    pack_clips(VideoClips(str(clip_folder), size=32), tmp_path / "clips.zip")
    options = {"clip_length": 3, "size": 32, "reverse": True, "degradation": (GaussianNoise(),)}
    packed, folder = PackedClips(str(tmp_path / "clips.zip"), **options), VideoClips(str(clip_folder), **options)
    assert [(c.name, c.frames) for c in packed.clips] == [("a", 12), ("b", 16), ("sub/c", 20)]
    expected = [folder[3, i] for i in range(6)]
    for i, item in enumerate(expected):
        found = packed[3, i]
        assert torch.equal(found["lq"], item["lq"])
        assert torch.equal(found["gt"], item["gt"])
        assert found["name"] == item["name"]
    batches = list(make_loader(packed, 3, 2, stop=3, workers=2))  # opened here before the workers start
    assert torch.equal(torch.cat([b["gt"] for b in batches]), torch.stack([item["gt"] for item in expected]))
    with zipfile.ZipFile(tmp_path / "clips.zip") as archive:
        assert archive.read("sub/c.mkv") == (clip_folder / "sub" / "c.mkv").read_bytes()
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}


def test_frames_are_encoded_as_the_dataset_gives_them(tmp_path: Path, texture) -> None:
    (tmp_path / "frames" / "c").mkdir(parents=True)
    for t, frame in enumerate(texture(30)):
        cv2.imwrite(str(tmp_path / "frames" / "c" / f"{t}.png"), frame[..., ::-1])
    dataset = FrameFolders(str(tmp_path / "frames"), size=32, max_frames=26)
    expected = dataset[0, 0]["gt"]
    pack_clips(dataset, tmp_path / "lossless.zip", codec="ffv1")
    assert torch.equal(PackedClips(str(tmp_path / "lossless.zip"), size=32)[0, 0]["gt"], expected)
    pack_clips(dataset, tmp_path / "small.zip", codec="libx264", crf=5, keyint=6)
    small = PackedClips(str(tmp_path / "small.zip"), size=32)
    assert (small[0, 0]["gt"].int() - expected.int()).abs().float().mean() < 10
    assert len(small.clips[0].source[1].keys) >= 4


def test_the_frame_rate_is_kept(clip_folder: Path, tmp_path: Path) -> None:
    pack_clips(VideoClips(str(clip_folder / "a.mkv"), size=32), tmp_path / "x.zip", codec="libx264")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        data = archive.read("a.mp4")
    assert read_timeline("a.mp4", data).info.fps == probe(clip_folder / "a.mkv").fps


def test_several_folders_and_photographs_in_pieces(clip_folder: Path, tmp_path: Path, texture) -> None:
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "p.png"), texture(1)[0])
    videos, photos = VideoClips(str(clip_folder), size=32), ImageFolder(str(tmp_path / "photos"), size=32)
    pack_clips([videos, photos], tmp_path / "x.zip", codec="ffv1", piece=6)
    packed = PackedClips(str(tmp_path / "x.zip"), size=32)
    folder = clip_folder.name
    lengths = {"a": (6, 6), "b": (6, 6, 4), "sub/c": (6, 6, 6)}
    expected = {f"{folder}/{name}_{i:03d}": n for name, counts in lengths.items() for i, n in enumerate(counts)}
    expected["photos/p"] = 1
    assert {c.name: c.frames for c in packed.clips} == expected
    pieces = torch.cat([packed[0, i]["gt"] for i, c in enumerate(packed.clips) if c.name.startswith(f"{folder}/b_")])
    assert torch.equal(pieces, videos[0, 1]["gt"])


def test_colours_of_small_crops_keep_their_resolution(tmp_path: Path) -> None:
    (tmp_path / "frames" / "c").mkdir(parents=True)
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)
    stripes[:, 1::2] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / "frames" / "c" / "0.png"), stripes)
    pack_clips(FrameFolders(str(tmp_path / "frames"), size=32), tmp_path / "x.zip", codec="libx264", crf=1)
    found = PackedClips(str(tmp_path / "x.zip"), size=32)[0, 0]["gt"][0].permute(1, 2, 0).int().numpy()
    assert np.abs(found - stripes[..., ::-1].astype(int)).mean() < 12


def test_what_cannot_be_packed(clip_folder: Path, tmp_path: Path, texture) -> None:
    with pytest.raises(UserError, match="clip_length must be null"):
        pack_clips(VideoClips(str(clip_folder), clip_length=2), tmp_path / "x.zip")
    (tmp_path / "c").mkdir()
    cv2.imwrite(str(tmp_path / "c" / "0.png"), texture(1)[0])
    with pytest.raises(UserError, match="FrameFolders holds no video files to copy"):
        pack_clips(FrameFolders(str(tmp_path)), tmp_path / "x.zip")
    with pytest.raises(UserError, match="there is no folder"):
        pack_clips(VideoClips(str(clip_folder)), tmp_path / "none" / "x.zip")
    (tmp_path / "c" / "0.png").write_text("no image")
    with pytest.raises(UserError, match="not an image"):
        pack_clips(FrameFolders(str(tmp_path)), tmp_path / "x.zip", codec="ffv1")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != ".keep_index.json") == ["c"]


def test_a_damaged_file_is_named(clip_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "clips.zip"
    pack_clips(VideoClips(str(clip_folder)), path)
    data = bytearray(path.read_bytes())
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"damaged\.zip: not a file of packed clips, or a truncated one"):
        PackedClips(str(damaged))
    data[5000:5100] = bytes(100)
    damaged.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged\.zip: a\.mkv: Bad CRC-32"):
        PackedClips(str(damaged), size=32)[0, 0]
    with pytest.raises(UserError, match="is a folder; PackedClips needs the packed file"):
        PackedClips(str(tmp_path))
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(UserError, match=r"text\.zip: not a file of packed clips"):
        PackedClips(str(tmp_path / "text.zip"))


def test_bytes_in_memory_read_like_a_file(clip_folder: Path) -> None:
    from keep.data.video_io import read_video

    path = clip_folder / "b.mkv"
    assert np.array_equal(read_video("b", 3, 4, 2, content=path.read_bytes()), read_video(path, 3, 4, 2))
