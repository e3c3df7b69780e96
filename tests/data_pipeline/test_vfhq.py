"""Frames and landmarks belong together: whatever is drawn, each frame is aligned by its own row."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from keep.config.plugins import import_registered
from keep.config.registry import DATASETS, schema
from keep.data.vfhq import VFHQ, read_landmarks, read_meta_info
from keep.faces.align import TEMPLATE_512, crop, similarity
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
