import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from keep.config.registry import DATASETS, schema
from keep.data.clips import FrameFolders, ImageFolder, VideoClips
from keep.data.images import square_resize
from keep.data.video_io import read_video, write_video
from keep.degradation.blur import GaussianBlur
from keep.degradation.codec import VideoCodec
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Pipeline
from keep.degradation.resize import Downsample
from keep.utils.clock import Clock
from keep.utils.errors import UserError

PAPER = (GaussianBlur((1, 2)), Downsample(), GaussianNoise((0, 5)), VideoCodec(crf=(18, 25)))


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


def frame_numbers(clip: torch.Tensor) -> list[int]:
    """The frame numbers that the test videos carry in their first pixels (frames are 48 × 64, cut to 48 × 48)."""
    return [int(v) // 4 for v in clip[:, 0, 0, 0]]


@pytest.fixture
def image_folders(tmp_path: Path, texture) -> Path:
    for n, name in enumerate(("p/one", "p/two")):
        (tmp_path / name).mkdir(parents=True)
        for t, frame in enumerate(texture(12, 48, 48, seed=n)):
            cv2.imwrite(str(tmp_path / name / f"{t}.png"), frame[..., ::-1])  # not zero-padded: 2 comes before 10
    return tmp_path


def test_an_item(clip_folder: Path) -> None:
    dataset = VideoClips(str(clip_folder), clip_length=5, size=32, degradation=PAPER)
    item = dataset[7, 0]
    assert set(item) == {"gt", "lq", "name", "degradation"}
    assert item["gt"].shape == (5, 3, 32, 32)
    assert item["lq"].shape == (5, 3, 8, 8)
    assert item["gt"].dtype == item["lq"].dtype == torch.uint8
    assert item["name"] in {"a", "b", "sub/c"}
    assert [d["type"] for d in json.loads(item["degradation"])] == [type(s).__name__ for s in PAPER]


def test_lq_is_the_degraded_gt_of_the_same_item(clip_folder: Path) -> None:
    dataset = VideoClips(str(clip_folder), clip_length=5, size=32, flip=True, reverse=True, degradation=PAPER)
    for position in range(6):
        item = dataset[7, position]
        gt = item["gt"].permute(0, 2, 3, 1).numpy()
        lq = Pipeline(PAPER).replay(gt, json.loads(item["degradation"]))
        assert np.array_equal(item["lq"].permute(0, 2, 3, 1).numpy(), lq)
        mean_gt, mean_lq = item["gt"].double().mean((2, 3)), item["lq"].double().mean((2, 3))
        assert (mean_gt - mean_lq).abs().max() < 20


def test_without_degradation_there_is_no_lq(clip_folder: Path) -> None:
    item = VideoClips(str(clip_folder), clip_length=2, size=32)[0, 0]
    assert "lq" not in item
    assert item["degradation"] == "[]"


def test_an_item_is_a_function_of_seed_and_position(clip_folder: Path) -> None:
    options: dict[str, Any] = {"clip_length": 4, "size": 32, "reverse": True, "flip": True, "degradation": PAPER}
    one, two = (VideoClips(str(clip_folder), **options) for _ in range(2))
    forward = [one[3, i] for i in range(7)]
    assert all(same(two[3, i], forward[i]) for i in reversed(range(7)))
    assert not any(same(one[4, i], forward[i]) for i in range(7))
    assert same(pickle.loads(pickle.dumps(one))[3, 5], forward[5])


def test_each_epoch_visits_every_clip_once_in_a_new_order_with_new_draws(clip_folder: Path) -> None:
    dataset = VideoClips(str(clip_folder), clip_length=4, size=32, degradation=PAPER)
    items = [dataset[1, i] for i in range(30)]
    orders = [tuple(item["name"] for item in items[e : e + 3]) for e in range(0, 30, 3)]
    assert all(set(order) == {"a", "b", "sub/c"} for order in orders)
    assert len(set(orders)) > 2
    assert len({item["degradation"] for item in items}) == 30


def test_frames_intervals_reversal_and_flip_are_drawn(clip_folder: Path) -> None:
    dataset = VideoClips(
        str(clip_folder / "a.mkv"), clip_length=4, size=48, interval=(1, 3, 6), reverse=True, flip=True
    )
    whole = torch.from_numpy(square_resize(read_video(clip_folder / "a.mkv"), 48)).permute(0, 3, 1, 2)
    seen = set()
    for position in range(80):
        gt = dataset[0, position]["gt"]
        mirrored = not any(torch.equal(gt[0], frame) for frame in whole)
        clip = gt.flip(-1) if mirrored else gt
        numbers = [next(n for n, frame in enumerate(whole) if torch.equal(frame, image)) for image in clip]
        steps = set(np.diff(numbers))
        assert len(steps) == 1
        seen.add((int(steps.pop()), mirrored))
    # 6 does not fit into 12 frames, and is left out.
    assert seen == {(step, mirrored) for step in (1, -1, 3, -3) for mirrored in (False, True)}


def test_every_start_is_drawn_to_the_last(clip_folder: Path) -> None:
    dataset = VideoClips(str(clip_folder / "a.mkv"), clip_length=10, size=48)
    whole = square_resize(read_video(clip_folder / "a.mkv"), 48)
    firsts = {dataset[0, i]["gt"][0].numpy().tobytes() for i in range(40)}
    assert firsts == {whole[n].transpose(2, 0, 1).tobytes() for n in range(3)}


def test_whole_clips_in_order(clip_folder: Path) -> None:
    dataset = VideoClips(str(clip_folder), size=48, degradation=PAPER)
    items = [dataset[0, i] for i in range(len(dataset))]
    assert [item["name"] for item in items] == ["a", "b", "sub/c"]
    assert [len(item["gt"]) for item in items] == [12, 16, 20]
    assert [len(item["lq"]) for item in items] == [12, 16, 20]
    expected = square_resize(read_video(clip_folder / "b.mkv"), 48)
    assert np.array_equal(items[1]["gt"].permute(0, 2, 3, 1).numpy(), expected)
    with pytest.raises(IndexError):
        dataset[0, 3]


def test_max_frames_takes_the_first_ones(clip_folder: Path) -> None:
    item = VideoClips(str(clip_folder), size=48, max_frames=3)[0, 2]
    expected = square_resize(read_video(clip_folder / "sub" / "c.mkv", 0, 3), 48)
    assert np.array_equal(item["gt"].permute(0, 2, 3, 1).numpy(), expected)


def test_a_clock_divides_the_time_into_decoding_and_degrading(clip_folder: Path) -> None:
    dataset, clock = VideoClips(str(clip_folder), size=48, degradation=PAPER), Clock()
    sample = dataset.sample(0, 1, clock)
    assert same(sample, dataset[0, 1])
    assert clock.seconds.keys() == {"decode", "degrade"}
    assert min(clock.seconds.values()) > 0


def test_square_resize() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    assert np.array_equal(square_resize(clip, 8), clip[:, :, 2:10])
    assert np.array_equal(square_resize(clip.transpose(0, 2, 1, 3), 8), clip[:, :, 2:10].transpose(0, 2, 1, 3))
    mean = clip[:, :, 2:10].reshape(2, 4, 2, 4, 2, 3).mean((2, 4))
    assert np.abs(square_resize(clip, 4) - mean).max() <= 0.5
    assert square_resize(clip, 20).shape == (2, 20, 20, 3)


def test_frame_folders_are_read_in_the_order_of_their_numbers(image_folders: Path, texture) -> None:
    dataset = FrameFolders(str(image_folders), size=48)
    assert [dataset[0, i]["name"] for i in range(len(dataset))] == ["p/one", "p/two"]
    assert np.array_equal(dataset[0, 1]["gt"].permute(0, 2, 3, 1).numpy(), texture(12, 48, 48, seed=1))
    drawn = FrameFolders(str(image_folders), clip_length=3, size=48, interval=(4,))[0, 0]["gt"]
    numbers = frame_numbers(drawn)
    assert np.diff(numbers).tolist() == [4, 4]


def test_a_flat_folder_holds_clips_of_one_frame(image_folders: Path) -> None:
    flat = image_folders / "p" / "one"
    dataset = FrameFolders(str(flat), clip_length=1, size=48, flip=True)
    assert len(dataset) == 12
    assert {dataset[0, i]["name"] for i in range(12)} == {str(n) for n in range(12)}
    assert dataset[0, 0]["gt"].shape == (1, 3, 48, 48)
    with pytest.raises(UserError, match="clip 0 has 1 frames, but clip_length 2"):
        FrameFolders(str(flat), clip_length=2)


def test_a_clip_too_short_is_named_with_the_need(clip_folder: Path, image_folders: Path) -> None:
    with pytest.raises(UserError, match="clip a has 12 frames, but clip_length 13 at interval 1 needs 13; "):
        VideoClips(str(clip_folder), clip_length=13)
    with pytest.raises(UserError, match=r"needs 17 \(and 1 more clips like it\)"):
        VideoClips(str(clip_folder), clip_length=9, interval=(2, 4))
    with pytest.raises(UserError, match="clip p/one has 12 frames"):
        FrameFolders(str(image_folders), clip_length=13)
    with pytest.raises(UserError, match="clip a has 4 frames"):
        VideoClips(str(clip_folder), clip_length=5, max_frames=4)


def test_bad_roots_are_errors(tmp_path: Path, clip_folder: Path, image_folders: Path, texture) -> None:
    (tmp_path / "empty").mkdir()
    for cls in (VideoClips, FrameFolders):
        with pytest.raises(UserError, match="gone: no such folder or file"):
            cls(str(tmp_path / "gone"))
        with pytest.raises(UserError, match="empty: no clips found; expected"):
            cls(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="FrameFolders needs a folder"):
        FrameFolders(str(clip_folder / "a.mkv"))
    cv2.imwrite(str(image_folders / "stray.png"), texture(1)[0])
    with pytest.raises(UserError, match="both directly and in folders"):
        FrameFolders(str(image_folders))


def test_broken_sources_are_named(tmp_path: Path, image_folders: Path, texture) -> None:
    (image_folders / "p" / "one" / "5.png").write_text("no image")
    with pytest.raises(UserError, match=r"one/5\.png: not an image"):
        FrameFolders(str(image_folders), size=48)[0, 0]
    cv2.imwrite(str(image_folders / "p" / "two" / "3.png"), texture(1, 20, 30)[0])
    with pytest.raises(UserError, match=r"two/3\.png: is 30x20, but 0\.png of the same clip is 48x48"):
        FrameFolders(str(image_folders), size=48)[0, 1]
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4: not a video file"):
        VideoClips(str(tmp_path / "v"))


def test_two_clips_of_one_name_are_an_error(tmp_path: Path, texture) -> None:
    for suffix in ("mp4", "mkv"):
        write_video(tmp_path / f"a.{suffix}", texture(2), 25)
    with pytest.raises(UserError, match="2 clips are named a"):
        VideoClips(str(tmp_path))


def test_options_that_contradict_are_errors(clip_folder: Path) -> None:
    options: list[dict[str, Any]] = [{"reverse": True}, {"flip": True}, {"interval": (2,)}]
    for option in options:
        with pytest.raises(UserError, match="need a clip_length"):
            VideoClips(str(clip_folder), **option)
    with pytest.raises(UserError, match="interval is empty"):
        VideoClips(str(clip_folder), clip_length=2, interval=())


@pytest.mark.parametrize("name", ["VideoClips", "FrameFolders"])
def test_the_options_are_explained_and_build(name: str, clip_folder: Path) -> None:
    fields = schema(DATASETS[name]).model_fields
    assert all(field.description for field in fields.values())
    if name == "VideoClips":
        options = {"type": name, "root": str(clip_folder), "clip_length": 3, "degradation": [{"type": "GaussianNoise"}]}
        assert DATASETS.spec(options).build()[0, 0]["lq"].shape == (3, 3, 512, 512)


def test_an_image_folder_holds_single_images_at_any_depth(image_folders: Path, texture) -> None:
    cv2.imwrite(str(image_folders / "top.png"), texture(1, 48, 48)[0])
    dataset = ImageFolder(str(image_folders), clip_length=1, size=48)
    assert [c.name for c in dataset.clips[:3]] == ["p/one/0", "p/one/1", "p/one/2"]
    assert len(dataset) == 25
    assert dataset[0, 0]["gt"].shape == (1, 3, 48, 48)
    second = next(i for i in range(25) if dataset[0, i]["name"] == "p/two/7")
    assert np.array_equal(dataset[0, second]["gt"][0].permute(1, 2, 0).numpy(), texture(12, 48, 48, seed=1)[7])
    with pytest.raises(UserError, match="clip p/one/0 has 1 frames, but clip_length 2"):
        ImageFolder(str(image_folders), clip_length=2)


def test_a_folder_that_changed_since_it_was_counted_is_named(image_folders: Path) -> None:
    dataset = FrameFolders(str(image_folders), size=48)
    (image_folders / "p" / "one" / "3.png").unlink()
    with pytest.raises(UserError, match="one: holds 11 images, but 12 were expected"):
        dataset[0, 0]
