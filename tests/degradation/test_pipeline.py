import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import keep.degradation  # noqa: F401  (registers the steps)
from keep.config.registry import DEGRADATIONS
from keep.data.video_io import read_video
from keep.degradation.blur import GaussianBlur
from keep.degradation.codec import VideoCodec
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Pipeline
from keep.degradation.resize import Downsample
from keep.utils.errors import UserError

OPTIONS = Path(__file__).resolve().parents[2] / "options" / "degradation"


def paper() -> Pipeline:
    return Pipeline([GaussianBlur(), Downsample(), GaussianNoise(), VideoCodec()])


def test_shape_type_and_record(texture: np.ndarray) -> None:
    lq, drawn = paper()(texture, np.random.default_rng(0))
    assert lq.shape == (6, 16, 24, 3)
    assert lq.dtype == np.uint8
    assert [d["type"] for d in drawn] == ["GaussianBlur", "Downsample", "GaussianNoise", "VideoCodec"]
    assert 2 <= drawn[0]["sigma"] <= 10
    assert 25 <= drawn[3]["crf"] <= 45


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(texture: np.ndarray) -> None:
    (a, drawn_a), (b, drawn_b), (c, drawn_c) = (paper()(texture, np.random.default_rng(s)) for s in (5, 5, 6))
    assert drawn_a == drawn_b != drawn_c
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_record_that_went_through_json_replays_to_the_same_bytes(texture: np.ndarray) -> None:
    lq, drawn = paper()(texture, np.random.default_rng(1))
    assert np.array_equal(paper().replay(texture, json.loads(json.dumps(drawn))), lq)


def test_a_record_of_other_steps_is_an_error(texture: np.ndarray) -> None:
    _, drawn = paper()(texture, np.random.default_rng(1))
    with pytest.raises(UserError, match="recorded with steps"):
        Pipeline([GaussianBlur()]).replay(texture, drawn)


def test_one_draw_holds_for_the_whole_clip(texture: np.ndarray) -> None:
    still = np.repeat(texture[:1], 3, axis=0)
    lq, _ = Pipeline([GaussianBlur(), Downsample(4, ("area", "bicubic"))])(still, np.random.default_rng(0))
    assert np.array_equal(lq[0], lq[2])


def test_it_rounds_and_clips_instead_of_wrapping() -> None:
    for level in (0, 255):
        clip = np.full((1, 32, 32, 3), level, np.uint8)
        lq, _ = Pipeline([GaussianNoise((10, 10))])(clip, np.random.default_rng(0))
        assert np.abs(lq.astype(int) - level).max() < 60
    assert np.array_equal(Pipeline([])(clip, np.random.default_rng(0))[0], clip)


def test_the_input_is_left_alone(texture: np.ndarray) -> None:
    before = texture.copy()
    paper()(texture, np.random.default_rng(0))
    assert np.array_equal(texture, before)


@pytest.mark.parametrize(
    ("name", "split", "sigma", "delta", "crf"),
    [
        ("paper", "train", (2, 10), (0, 10), (25, 45)),
        ("mild", "test", (2, 5), (0, 5), (18, 25)),
        ("medium", "test", (5, 10), (5, 10), (25, 35)),
        ("heavy", "test", (5, 10), (5, 10), (35, 45)),
    ],
)
def test_the_option_files_hold_the_supplement_s_ranges(
    texture: np.ndarray, name: str, split: str, sigma: tuple, delta: tuple, crf: tuple
) -> None:
    options = yaml.safe_load((OPTIONS / f"{name}.yml").read_text())["data"][split]["degradation"]
    steps = [DEGRADATIONS.spec(o).build() for o in options]
    blur, down, noise, codec = steps
    assert (blur.sigma, down.scale, noise.sigma, codec.crf) == (sigma, 4, delta, crf)
    assert Pipeline(steps)(texture, np.random.default_rng(0))[0].shape == (6, 16, 24, 3)


def test_the_public_variant(texture: np.ndarray) -> None:
    options = yaml.safe_load((OPTIONS / "public.yml").read_text())["data"]["train"]["degradation"]
    steps = [DEGRADATIONS.spec(o).build() for o in options]
    assert [type(s).__name__ for s in steps] == [
        "GaussianBlur", "GaussianNoise", "Downsample", "GaussianNoise", "VideoCodec"
    ]  # fmt: skip
    assert (steps[0].anisotropic, steps[0].taps, steps[1].grey, steps[3].grey) == (0.3, None, 0.5, 0.5)
    assert dict(zip(steps[2].modes, steps[2].probabilities, strict=True)) == {
        "area": 0.3,
        "bilinear": 0.3,
        "bicubic": 0.4,
    }
    assert (steps[4].fps, steps[4].crf) == (1, (25, 45))
    lq, drawn = Pipeline(steps)(texture, np.random.default_rng(0))
    assert lq.shape == (6, 16, 24, 3)
    assert drawn[1]["seed"] != drawn[3]["seed"]


def test_the_clock_names_the_stages(texture: np.ndarray) -> None:
    pipeline, clock = paper(), {}
    drawn = pipeline.draw(np.random.default_rng(0))
    assert np.array_equal(pipeline.replay(texture, drawn, clock), pipeline.replay(texture, drawn))
    assert list(clock) == ["GaussianBlur+Downsample", "GaussianNoise", "VideoCodec"]
    assert all(seconds > 0 for seconds in clock.values())


def test_the_stream_decodes_to_the_low_quality_clip(texture: np.ndarray, tmp_path: Path) -> None:
    pipeline = paper()
    lq, drawn = pipeline(texture, np.random.default_rng(2))
    (tmp_path / "a.mp4").write_bytes(pipeline.stream(texture, drawn))
    assert np.array_equal(read_video(tmp_path / "a.mp4"), lq)
    before = pipeline.before_codec(texture, drawn)
    assert np.array_equal(pipeline.steps[-1].apply(before.astype(np.float32), **without_type(drawn[-1])), lq)


def test_a_stream_needs_a_codec_at_the_end(texture: np.ndarray) -> None:
    for steps in ([GaussianBlur()], [VideoCodec(), GaussianNoise()]):
        pipeline = Pipeline(steps)
        with pytest.raises(UserError, match="codec"):
            pipeline.stream(texture, pipeline.draw(np.random.default_rng(0)))


def without_type(drawn: dict) -> dict:
    return {k: v for k, v in drawn.items() if k != "type"}
