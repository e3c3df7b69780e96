import json
import os
from pathlib import Path

import pytest

from keep.data import clips as clips_module
from keep.data.clips import FrameFolders, ImageFolder, VideoClips
from keep.data.index import FILE_NAME, FolderIndex
from keep.data.timeline import Timeline, read_timeline
from keep.data.video_io import read_video, write_video


def settle(root: Path) -> None:
    """Make everything below look a minute old: what is younger than two seconds is not remembered."""
    for path in (root, *root.rglob("*")):
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 60_000_000_000))


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the videos that are gone through."""
    names: list[str] = []

    def counting(path: Path) -> Timeline:
        names.append(Path(path).name)
        return read_timeline(path)

    monkeypatch.setattr(clips_module, "read_timeline", counting)
    return names


@pytest.fixture
def videos(tmp_path: Path, texture) -> Path:
    root = tmp_path / "videos"
    (root / "sub").mkdir(parents=True)
    for n, name in enumerate(("a.mp4", "sub/b.mkv")):
        write_video(root / name, texture(5 + n), 25)
    settle(root)
    return root


def test_videos_are_gone_through_once(videos: Path, probed: list[str]) -> None:
    first = VideoClips(str(videos), size=16)
    assert probed == ["a.mp4", "b.mkv"]
    assert (videos / FILE_NAME).is_file()
    again = VideoClips(str(videos), size=16)
    assert probed == ["a.mp4", "b.mkv"]
    assert again.clips == first.clips
    assert [c.frames for c in again.clips] == [5, 6]
    path, timeline = again.locate(again.clips[1])
    assert (read_video(path, 3, 2, 1, timeline) == read_video(path, 3, 2)).all()


def test_a_changed_video_is_gone_through_again(videos: Path, probed: list[str], texture) -> None:
    VideoClips(str(videos), size=16)
    write_video(videos / "a.mp4", texture(9), 25)
    assert [c.frames for c in VideoClips(str(videos), size=16).clips] == [9, 6]
    assert probed == ["a.mp4", "b.mkv", "a.mp4"]


def test_new_and_deleted_files_are_seen(videos: Path, texture) -> None:
    VideoClips(str(videos), size=16)
    write_video(videos / "sub" / "c.mp4", texture(3), 25)
    (videos / "a.mp4").unlink()
    assert [c.name for c in VideoClips(str(videos), size=16).clips] == ["sub/b", "sub/c"]


def test_a_young_file_is_not_remembered(videos: Path, probed: list[str], texture) -> None:
    write_video(videos / "a.mp4", texture(4), 25)  # may be written again within the clock's resolution
    for _ in range(2):
        VideoClips(str(videos), size=16)
    assert probed.count("a.mp4") == 2
    assert probed.count("b.mkv") == 1


def test_where_the_root_cannot_be_written_the_index_lies_in_the_cache_folder(
    videos: Path, probed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEP_HOME", str(tmp_path / "home"))
    (videos / FILE_NAME).mkdir()  # root may write into any folder: a folder of that name stands in for a read-only disk
    for _ in range(2):
        VideoClips(str(videos), size=16)
    assert probed == ["a.mp4", "b.mkv"]
    assert len(list((tmp_path / "home" / "index").glob("*.json"))) == 1


def test_a_damaged_index_is_made_anew(videos: Path, probed: list[str]) -> None:
    for text in ("{", "[]", json.dumps({"format": 0, "videos": {}})):
        (videos / FILE_NAME).write_text(text)
        assert len(VideoClips(str(videos), size=16).clips) == 2
    assert probed.count("a.mp4") == 3
    assert not list(videos.glob(f"{FILE_NAME}.*"))


def test_uneven_time_stamps_survive_the_index(tmp_path: Path, texture, encode) -> None:
    path = encode(tmp_path / "a.mkv", texture(7), g="3", bf="2")  # Matroska rounds to milliseconds
    timeline = read_timeline(path)
    uneven = Timeline(timeline.info, (0, 40, 81, 120, 160, 200, 240), timeline.keys)
    for t in (timeline, uneven, Timeline(timeline.info, None, None)):
        assert Timeline.load(json.loads(json.dumps(t.dump()))) == t


def test_frame_folders_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        (tmp_path / f"c{n}").mkdir()
        for t in range(n + 1):
            (tmp_path / f"c{n}" / f"{t}.png").touch()
    settle(tmp_path)
    first = FrameFolders(str(tmp_path)).clips
    assert [(c.name, c.frames) for c in first] == [("c0", 1), ("c1", 2), ("c2", 3)]
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(Path(path).name) or scandir(path))
    assert FrameFolders(str(tmp_path)).clips == first
    assert listed == [tmp_path.name]  # the index's own file changed the root
    (tmp_path / "c1" / "9.png").touch()
    assert [c.frames for c in FrameFolders(str(tmp_path)).clips] == [1, 3, 3]


def test_kinds_share_a_file_and_not_their_values(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "0.png").touch()
    settle(tmp_path)
    for _ in range(2):
        assert [c.name for c in FrameFolders(str(tmp_path)).clips] == ["c"]
        assert [c.name for c in ImageFolder(str(tmp_path)).clips] == ["c/0"]
    assert {"frames", "images"} <= json.loads((tmp_path / FILE_NAME).read_text()).keys()


def test_a_link_in_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "back").symlink_to(tmp_path)
    folders = [f for f, _ in FolderIndex(tmp_path, "frames").walk(frozenset({".png"}), names=True)]
    assert folders == [tmp_path, tmp_path / "c"]
