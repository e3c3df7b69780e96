"""Frames and landmarks belong together: whatever is drawn, each frame is aligned by its own row."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from keep.config.plugins import import_registered
from keep.config.registry import DATASETS, schema
from keep.data.region import Region
from keep.data.vfhq import VFHQ, read_landmarks, read_meta_info
from keep.degradation.blur import GaussianBlur
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Pipeline
from keep.degradation.resize import Downsample
from keep.faces.align import TEMPLATE_512, crop, scale_of, similarity
from keep.faces.smooth import smooth
from keep.utils.errors import UserError

FRAMES, SIDE = 12, 64


def points_of(clip: int, t: int) -> np.ndarray:
    """The five points of frame t: the template, small, turned and moved by an amount of its own."""
    angle, scale = 0.05 * t - 0.2 * clip, (0.5 + 0.02 * t) * SIDE / 512
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (TEMPLATE_512 - 256) @ turn.T * scale + SIDE / 2 + [t - 4, 2 * clip - t / 2]


def frame_of(clip: int, t: int) -> np.ndarray:
    rng = np.random.default_rng([clip, t])
    return cv2.GaussianBlur(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8), (0, 0), 2)


def row(points: np.ndarray) -> str:
    return " ".join(f"{v:.6f}" for v in points.ravel())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips in the layout of KEEP's authors: frames, a landmark file each, one list."""
    root = tmp_path_factory.mktemp("vfhq")
    (root / "landmarks").mkdir()
    for n in range(2):
        (root / "train" / f"Clip+{n}").mkdir(parents=True)
        rows = []
        for t in range(FRAMES):
            cv2.imwrite(str(root / "train" / f"Clip+{n}" / f"{t:08d}.png"), frame_of(n, t)[..., ::-1])
            rows.append(f"{t:08d}.png {row(points_of(n, t))}\n")
        (root / "landmarks" / f"Clip+{n}.txt").write_text("# made for a test\n" + "".join(rows))
    (root / "meta_info.txt").write_text(f"Clip+0/{FRAMES:08d}\nClip+1/{FRAMES:08d}\n")
    return root


def expected_frame(clip: int, t: int, size: int, sigma: float = 0) -> np.ndarray:
    points = smooth(np.stack([points_of(clip, n) for n in range(FRAMES)]), sigma)
    return crop(frame_of(clip, t), similarity(points[t], size), size)


@pytest.mark.parametrize("sigma", [0.0, 5.0])
def test_every_frame_drawn_is_aligned_by_its_own_row(tree: Path, sigma: float) -> None:
    dataset = VFHQ(
        str(tree / "train"), landmarks=str(tree / "landmarks"), smooth=sigma,
        clip_length=3, size=48, interval=(1, 3), reverse=True,
    )  # fmt: skip
    all_frames = {(n, t): expected_frame(n, t, 48, sigma) for n in range(2) for t in range(FRAMES)}
    seen = set()
    for position in range(40):
        drawn = dataset.ground_truth(1, position)
        clip = int(drawn.name[-1])
        found = [
            next(t for t in range(FRAMES) if np.abs(all_frames[clip, t].astype(int) - f).max() <= 1) for f in drawn.gt
        ]
        seen.add((clip, *np.diff(found)))
    assert seen == {(clip, step, step) for clip in range(2) for step in (1, -1, 3, -3)}


def test_aligned_points_lie_on_the_template(tree: Path) -> None:
    points = read_landmarks(tree / "landmarks" / "Clip+1.txt", [f"{t:08d}.png" for t in range(FRAMES)], (SIDE, SIDE))
    for t in range(FRAMES):
        matrix = similarity(points[t])
        np.testing.assert_allclose(points[t] @ matrix[:, :2].T + matrix[:, 2], TEMPLATE_512, atol=0.01)


def test_without_landmarks_frames_are_taken_as_aligned(tree: Path) -> None:
    gt = VFHQ(str(tree / "train"), size=SIDE)[0, 1]["gt"].permute(0, 2, 3, 1).numpy()
    assert np.array_equal(gt, np.stack([frame_of(1, t) for t in range(FRAMES)]))


def test_the_list_picks_clips_and_their_lengths_are_checked(tree: Path, tmp_path: Path) -> None:
    def listed(text: str, **options):
        (tmp_path / "list.txt").write_text(text)
        return VFHQ(str(tree / "train"), meta_info=str(tmp_path / "list.txt"), size=SIDE, **options)

    assert [c.name for c in listed(f"Clip+1/{FRAMES}\n").clips] == ["Clip+1"]
    with pytest.raises(UserError, match=rf"Clip\+1: holds {FRAMES} images, but 9 were expected"):
        listed("Clip+1/9\n")[0, 0]
    with pytest.raises(UserError, match=r"list\.txt names this clip, but there is no such folder"):
        listed("Clip+7/9\n")
    with pytest.raises(UserError, match=r"list\.txt:2: expected CLIP/NUMBER_OF_FRAMES, got 'Clip'"):
        listed("Clip+1/12\nClip\n")
    dataset = listed(f"Clip+7/9\nClip+1/{FRAMES}\n", clip_length=2, on_bad="skip")
    assert [c.name for c in dataset.clips] == ["Clip+1"]
    assert "Clip+7" in dataset.bad[0]
    assert read_meta_info(tree / "meta_info.txt") == {"Clip+0": FRAMES, "Clip+1": FRAMES}


def test_a_missing_row_or_file_is_named(tree: Path, tmp_path: Path) -> None:
    for n in range(2):
        lines = (tree / "landmarks" / f"Clip+{n}.txt").read_text().splitlines()
        (tmp_path / f"Clip+{n}.txt").write_text("\n".join(line for line in lines if n or "0000005.png" not in line))
    whole = VFHQ(str(tree / "train"), landmarks=str(tmp_path), size=48)
    with pytest.raises(UserError, match=r"Clip\+0\.txt: no landmark row for frame 00000005\.png"):
        whole[0, 0]
    assert len(whole[0, 1]["gt"]) == FRAMES
    drawn = VFHQ(str(tree / "train"), landmarks=str(tmp_path), size=48, clip_length=FRAMES, on_bad="skip")
    items = [drawn[0, i] for i in range(4)]
    assert {item["name"] for item in items} == {"Clip+1"}
    assert sum("no landmark row" in item["skipped"] for item in items) == 2
    (tmp_path / "Clip+1.txt").unlink()
    with pytest.raises(UserError, match=r"Clip\+1\.txt: no landmarks of clip Clip\+1"):
        VFHQ(str(tree / "train"), landmarks=str(tmp_path))
    with pytest.raises(UserError, match="landmarks: there is no folder"):
        VFHQ(str(tree / "train"), landmarks=str(tmp_path / "gone"))


def source_file(path: Path, first: int, skip: tuple[int, ...] = (), index: int | None = None) -> Path:
    """VFHQ's own layout: rows in pixels of a source video in which the clip is cut out at (100, 40), twice its size."""
    rows = []
    for t in range(FRAMES):
        if t not in skip:
            values = row(points_of(0, t) * 2 + [100, 40])
            rows.append(f"{first + t:06d} {t if index is None else index:08d} 110 50 60 60 {values}")
    head = ["Video ID: x", "H: 1080", "W: 1920", "FPS: 25.0", "", "FRAME INDEX X0 Y0 W H [Landmarks (5 Points)]", ""]
    path.write_text("\n".join([*head, *rows, "", f"CROP X0 Y0 X1 Y1: 100 40 {100 + 2 * SIDE} {40 + 2 * SIDE}"]))
    return path


@pytest.mark.parametrize(
    ("names", "first", "index"),
    [
        ([f"{t:08d}.png" for t in range(FRAMES)], 4060, 0),  # by order
        ([f"{t:08d}.png" for t in range(FRAMES)], 4060, None),  # by INDEX
        ([f"{4060 + t:08d}.png" for t in range(FRAMES)], 4060, 0),  # by FRAME
    ],
)
def test_vfhq_s_own_rows_come_in_pixels_of_the_clip(tmp_path: Path, names: list[str], first: int, index: int) -> None:
    points = read_landmarks(source_file(tmp_path / "c.txt", first, index=index), names, (SIDE, SIDE))
    np.testing.assert_allclose(points, np.stack([points_of(0, t) for t in range(FRAMES)]), atol=1e-5)


def test_a_missing_source_row_leaves_its_frame_alone(tmp_path: Path) -> None:
    names = [f"{4060 + t:08d}.png" for t in range(FRAMES)]
    points = read_landmarks(source_file(tmp_path / "c.txt", 4060, skip=(3, 7), index=0), names, (SIDE, SIDE))
    assert np.flatnonzero(np.isnan(points).any((1, 2))).tolist() == [3, 7]
    np.testing.assert_allclose(points[8], points_of(0, 8), atol=1e-5)
    with pytest.raises(UserError, match="its 10 rows fit the 12 frames neither by number nor by order"):
        read_landmarks(tmp_path / "c.txt", [f"{t}.png" for t in range(FRAMES)], (SIDE, SIDE))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no landmark rows"),
        ("00000000.png 1 2 3\n", ":1: not a landmark row: 4 values"),
        ("00000000.png 1 2 3 4 5 6 7 8 9 x\n", ":1: not a landmark row: could not convert"),
        ("00000099.png 1 2 3 4 5 6 7 8 9 10\n", "its rows match no frame of the clip"),
    ],
)
def test_landmark_files_that_cannot_be_used(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(UserError, match=rf"c\.txt.*{reason}"):
        read_landmarks(tmp_path / "c.txt", ["00000000.png"], (SIDE, SIDE))
    with pytest.raises(UserError, match=r"gone\.txt: cannot be read: No such file"):
        read_landmarks(tmp_path / "gone.txt", ["00000000.png"], (SIDE, SIDE))


def test_every_option_of_every_dataset_is_explained() -> None:
    import_registered()
    names = {"VideoClips", "FrameFolders", "ImageFolder", "VFHQ", "LMDBClips", "PackedClips"}
    assert names <= set(DATASETS.names())
    for name in names:
        fields = schema(DATASETS[name]).model_fields
        assert {"root", "clip_length", "degradation", "on_bad", "lq_cache"} <= fields.keys()
        assert all(field.description for field in fields.values()), name
    assert {"landmarks", "meta_info", "smooth"} <= schema(VFHQ).model_fields.keys()


# --- alignment after the degradation ------------------------------------------------------------------------------

AREA = (Downsample(4),)


def moving_disc(root: Path, radius: float = 20) -> VFHQ:
    """A clip of 192×192 frames in which a bright disc sits where the template has the nose, as points of their own."""
    (root / "train/a").mkdir(parents=True)
    (root / "landmarks").mkdir()
    y, x = np.mgrid[:192, :192]
    rows = []
    for t in range(6):
        angle, scale = 0.2 * t - 0.5, 0.34 + 0.01 * t
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = (TEMPLATE_512 - 256) @ turn.T * scale + [100 + 2 * t, 90 - 3 * t]
        distance = np.hypot(x - points[2, 0], y - points[2, 1])
        frame = (100 + 150 / (1 + np.exp(distance - radius))).round().astype(np.uint8)
        cv2.imwrite(str(root / f"train/a/{t:08d}.png"), np.repeat(frame[..., None], 3, axis=2))
        rows.append(f"{t:08d}.png {row(points)}\n")
    (root / "landmarks/a.txt").write_text("".join(rows))
    return VFHQ(str(root / "train"), landmarks=str(root / "landmarks"), smooth=0, size=128, degradation=AREA)


def centre(frame: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """The centre of the disc in a frame (3, side, side) of 128 pixels or fewer: (x, y) in pixels of 128."""
    side = frame.shape[-1]
    x, y = (np.mgrid[:side, :side][::-1] + 0.5) * 128 / side - 0.5
    nose = TEMPLATE_512[2] / 4
    near = np.hypot(x - (127 - nose[0] if mirrored else nose[0]), y - nose[1]) < 36
    weight = (frame[0] - frame[0][near].min()) * near.astype(float)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def inside(small: np.ndarray, large: np.ndarray) -> np.ndarray:
    """Differences of a small frame from the reduced large one, in the middle, where both show the source frame."""
    reduced = cv2.resize(large, (32, 32), interpolation=cv2.INTER_AREA)
    return np.abs(small.astype(float) - reduced)[8:24, 8:24]


def test_frames_degraded_before_alignment_lie_on_the_grid_of_the_truth(tmp_path: Path) -> None:
    sample = moving_disc(tmp_path)[0, 0]
    gt, lq = sample["gt"].numpy(), sample["lq"].numpy()
    assert (gt.shape, lq.shape) == ((6, 3, 128, 128), (6, 3, 32, 32))
    for truth, small in zip(gt, lq, strict=True):
        np.testing.assert_allclose(centre(truth), TEMPLATE_512[2] / 4, atol=0.25)
        np.testing.assert_allclose(centre(small), centre(truth), atol=0.25)
        assert inside(small[0], truth[0]).mean() < 2
        assert inside(small[0], truth[0]).max() < 16


def test_mirrored_and_reversed_clips_are_degraded_and_aligned_alike(tmp_path: Path) -> None:
    whole = moving_disc(tmp_path)
    options = {"landmarks": str(whole.landmarks), "smooth": 0, "size": 128, "degradation": AREA, "clip_length": 4}
    drawn = VFHQ(str(whole.root), flip=True, reverse=True, tone_jitter=(0.5, 0), **options)
    cuts = set()
    for position in range(12):
        truth, sample = drawn.ground_truth(3, position), drawn[3, position]
        cuts.add(truth.cut.partition(" ")[2])
        for t in range(4):
            large, small = sample["gt"][t].numpy(), sample["lq"][t].numpy()
            mirrored = "mirrored" in truth.cut
            np.testing.assert_allclose(centre(small, mirrored), centre(large, mirrored), atol=0.25)
            assert inside(small[0], large[0]).mean() < 2
    assert len(cuts) == 4


def test_the_truth_does_not_depend_on_the_order_and_before_degrades_it(tree: Path) -> None:
    options = {"landmarks": str(tree / "landmarks"), "size": 48, "clip_length": 3, "flip": True, "reverse": True}
    steps = (GaussianBlur((1, 3)), Downsample(4), GaussianNoise((5, 10)))
    before, after = (VFHQ(str(tree / "train"), align=a, degradation=steps, **options) for a in ("before", "after"))
    plain = VFHQ(str(tree / "train"), **options)
    for i in range(8):
        truth = before.ground_truth(2, i)
        lq, drawn = Pipeline(steps)(truth.gt, truth.rng)
        first, second = before[2, i], after[2, i]
        assert np.array_equal(first["lq"].permute(0, 2, 3, 1).numpy(), lq)
        assert first["degradation"] == second["degradation"] == json.dumps(drawn)
        assert torch.equal(first["gt"], second["gt"])
        assert torch.equal(first["gt"], plain[2, i]["gt"])
        assert not torch.equal(first["lq"], second["lq"])
        assert torch.equal(after[2, i]["lq"], second["lq"])
        assert plain.ground_truth(2, i).region is None


def test_a_cache_of_the_other_order_is_refused(tree: Path, tmp_path: Path) -> None:
    options = {"landmarks": str(tree / "landmarks"), "size": 48, "clip_length": 3, "lq_cache": str(tmp_path)}
    after, before = (
        VFHQ(str(tree / "train"), align=a, degradation=AREA, **options) for a in ("after", "before")
    )  # fmt: skip
    assert torch.equal(after[1, 0]["lq"], after[1, 0]["lq"])
    with pytest.raises(UserError, match=r"lq_cache: .*align is after in the cache, null now"):
        before[1, 0]


def test_a_region_reaches_as_far_as_the_frames(tree: Path) -> None:
    frames = np.stack([frame_of(0, t) for t in range(4)])
    matrices = [similarity(points_of(0, t), 96) for t in range(4)]
    region = Region.around(frames, matrices, 96, 8)
    assert region.frames.shape[1] % 8 == region.frames.shape[2] % 8 == 0
    scale = np.exp(np.mean([np.log(scale_of(m)) for m in matrices]))
    assert max(region.frames.shape[1:3]) < scale * SIDE + 8
    aligned = region.align(region.frames)
    for t in range(4):
        expected = crop(frames[t], matrices[t], 96)
        shown = np.all(crop(np.full_like(frames[t], 255), matrices[t], 96) == 255, axis=2)
        assert np.abs(aligned[t].astype(float) - expected)[shown].mean() < 2
    with pytest.raises(UserError, match="VFHQ: size 90 is not divisible by 4"):
        VFHQ(str(tree / "train"), landmarks=str(tree / "landmarks"), size=90, degradation=AREA)[0, 0]
