"""Options: includes, overrides, plugins, and all mistakes reported at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from keep.config.explain import explain
from keep.config.reading import check, load, merge, override, read_yaml, to_yaml
from keep.config.schema import TestConfig, TrainConfig
from keep.degradation.pipeline import Pipeline
from keep.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TRAIN_FILES = sorted(p for d in ("train", "tiny") for p in (ROOT / "options" / d).glob("stage*.yml"))
SMALL_NETWORKS = ("nano", "lite", "small")
SMALL_FILES = sorted(p for d in SMALL_NETWORKS for p in (ROOT / "options" / d).glob("stage*.yml"))
BASELINE_FILES = sorted(p for p in (ROOT / "options/baselines").rglob("[a-z]*.yml") if p.stem != "test")
TEST_FILES = sorted(
    p for d in ("test/[a-z]*", "tiny/test", "baselines/**/test") for p in (ROOT / "options").glob(f"{d}.yml")
)


@pytest.mark.parametrize(
    "path", [*TRAIN_FILES, *SMALL_FILES, *BASELINE_FILES], ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_shipped_training_options_load_and_come_back_equal(path: Path, tmp_path: Path) -> None:
    config = load(path, [], TrainConfig)
    copy = tmp_path / "options.yml"
    copy.write_text(to_yaml(config))
    assert load(copy, [], TrainConfig) == config


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_shipped_test_options_load_and_come_back_equal(path: Path, tmp_path: Path) -> None:
    config = load(path, [], TestConfig)
    copy = tmp_path / "options.yml"
    copy.write_text(to_yaml(config))
    assert load(copy, [], TestConfig) == config


def test_stage_one_on_ffhq_differs_from_that_on_vfhq_in_its_images_alone() -> None:
    ffhq, vfhq = (load(ROOT / f"options/train/stage1_{n}.yml", [], TrainConfig) for n in ("ffhq", "vqgan"))
    assert ffhq.data.val is not None
    assert (ffhq.data.train.type, ffhq.data.val.type) == ("ImageFolder", "ImageFolder")
    assert (ffhq.data.train.options["size"], ffhq.data.train.options["clip_length"]) == (512, 1)
    assert (ffhq.model, ffhq.train, ffhq.data.clips_per_step) == (vfhq.model, vfhq.train, vfhq.data.clips_per_step)


@pytest.mark.parametrize("stage", ["1_vqgan", "2_kalman", "3_video"])
def test_the_paper_s_stages_align_frames_and_count_clips_as_published(stage: str) -> None:
    config = load(ROOT / f"options/train/stage{stage}.yml", [], TrainConfig)
    data = config.data
    for part in (data.train, data.val):
        assert part is not None
        assert part.type == "VFHQ"
        assert part.options["landmarks"] == "datasets/VFHQ/landmarks"
        assert part.options["align"] == "after"
    assert data.clips_per_step is not None
    assert data.clips_per_step * config.train.iters == data.source_clips


def test_shipped_files_are_all_here() -> None:
    assert len(TRAIN_FILES) == 7
    assert len(TEST_FILES) == 8


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_stages_of_a_small_network_fit_each_other(name: str) -> None:
    folder = ROOT / "options" / name
    stage1, stage2, stage3 = (load(folder / f"stage{n}.yml", [], TrainConfig) for n in (1, 2, 3))
    keep, autoencoder = (config.model.options["net"].options for config in (stage3, stage1))
    assert stage2.model.options["net"].dump() == stage3.model.options["net"].dump()
    assert autoencoder == {k: keep[k] for k in autoencoder}
    assert stage2.train.lr_scale == {"kalman_filter": 0.05}
    for config in (stage1, stage2, stage3):
        assert config.data.train.options["size"] == keep["image_size"]
    scaled = {"GaussianBlur": (2, 10), "GaussianNoise": (0, 10)}  # eq. (9) at 512×512
    for config in (stage2, stage3):
        train = config.data.train.options
        paper = train["datasets"][0].options if "datasets" in train else train  # lite: the first of several strengths
        sigmas = sigmas_at(paper["degradation"], keep["image_size"])
        for step, (low, high) in scaled.items():
            assert sigmas[step] == (low * keep["image_size"] / 512, high * keep["image_size"] / 512)


def test_the_lite_network_is_small() -> None:
    net = load(ROOT / "options/lite/stage3.yml", [], TrainConfig).model.options["net"]
    with torch.device("meta"):
        parts = dict(net.build().named_children())
    count = sum(p.numel() for name, part in parts.items() if name != "flownet" for p in part.parameters())
    assert count < 5e6
    assert (net.options["image_size"], net.options["patch"]) == (256, 2)


def test_the_paper_s_values_stand() -> None:
    loss = load(ROOT / "options/train/stage3_video.yml", [], TrainConfig).model.options
    weights = [loss[k].options["weight"] for k in ("pixel", "perceptual", "gan", "temporal")]
    assert weights == [0.01, 1.0, 0.1, 0.1]  # supplement A.3
    assert loss["temporal"].options["reduction"] == "sum"  # eq. (7)
    gan = load(ROOT / "options/train/stage1_vqgan.yml", [], TrainConfig).model.options["gan"].options
    assert (gan["max_weight"], gan["scale"]) == (1.0, 0.8)  # CodeFormer's
    for split, values in A1.items():
        assert ranges(load(ROOT / f"options/test/vfhq_{split}.yml", [], TestConfig).data["test"]) == values


def test_three_mistakes_are_reported_together_with_line_and_known_name(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yml"
    text = (ROOT / "options/tiny/stage1.yml").read_text()
    text = text.replace("threads: 2", "thread: 2").replace("threads: 1", "thread: 1")
    text = text.replace("type: VQGAN\n", "type: VQGANN\n").replace("lr: 2.0e-3", "lr: fast")
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load(path, [], TrainConfig)
    first, *rows = str(refused.value).splitlines()
    assert first.endswith("has 3 mistakes:")
    assert len(rows) == 3
    for line, parts in {
        "thread": ["thread: unknown option; did you mean 'threads'?"],
        "VQGANN": ["model.net.type: no arch is named 'VQGANN'; did you mean 'VQGAN'?"],
        "lr: fast": ["train.optim.lr:", "valid number", "'fast'"],
    }.items():
        number = next(i for i, row in enumerate(text.splitlines(), 1) if line in row)
        row = next(r for r in rows if f"wrong.yml:{number} " in r)
        assert all(p in row for p in parts), row


def test_base_files_merge_beneath(tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text("a: {x: 1, y: 2}\nloss: {type: L1, weight: 3}\n")
    (tmp_path / "top.yml").write_text("_base_: base.yml\na: {y: 5}\nloss: {type: MSE}\n")
    source = read_yaml(tmp_path / "top.yml")
    assert source.data == {"a": {"x": 1, "y": 5}, "loss": {"type": "MSE", "weight": 3}}
    assert source.inherited == {("loss", "weight")}
    assert source.where(("a", "x")).endswith("base.yml:1")
    assert source.where(("a", "y")).endswith("top.yml:2")


def test_a_new_type_keeps_the_options_it_shares_with_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "top.yml").write_text(
        f"_base_: {ROOT / 'options/tiny/stage2.yml'}\n"
        "data: {train: {type: FrameFolders, root: x}}\n"
        "model: {feature: {type: Charbonnier}, cross_entropy: {type: L1}}\n"
    )
    config = load(tmp_path / "top.yml", ["train.schedule.type=Constant"], TrainConfig)
    data = config.data.train
    assert (data.type, data.options["root"], data.options["clip_length"]) == ("FrameFolders", "x", 3)
    assert len(data.options["degradation"]) == 4
    assert config.model.options["cross_entropy"].options == {"weight": 0.5}
    assert config.train.schedule.type == "Constant"  # it has no eta_min: dropped, not a mistake
    (tmp_path / "more.yml").write_text("_base_: top.yml\nmodel: {cross_entropy: {delta: 1}}\n")
    with pytest.raises(UserError, match=r"more\.yml:2  model\.cross_entropy\.delta: unknown option"):
        load(tmp_path / "more.yml", [], TrainConfig)


def test_an_option_that_is_given_again_is_no_longer_inherited(tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text("loss: {type: L1, weight: 3, eps: 1}\n")
    (tmp_path / "top.yml").write_text("_base_: base.yml\nloss: {type: MSE}\n")
    top = read_yaml(tmp_path / "top.yml")
    assert top.inherited == {("loss", "weight"), ("loss", "eps")}
    (tmp_path / "more.yml").write_text("_base_: top.yml\nloss: {eps: 2}\n")
    assert read_yaml(tmp_path / "more.yml").inherited == {("loss", "weight")}
    assert override(top, "loss.eps=2").inherited == {("loss", "weight")}
    assert override(top, "loss={type: L1, eps: 2}").inherited == frozenset()
    # A second base below the file keeps what its own base gave it.
    (tmp_path / "second.yml").write_text("loss: {weight: 4}\n")
    (tmp_path / "both.yml").write_text("_base_: [second.yml, top.yml]\n")
    assert read_yaml(tmp_path / "both.yml").inherited == {("loss", "weight"), ("loss", "eps")}


def test_the_type_of_an_optimizer_can_change(tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text(
        f"_base_: {ROOT / 'options/tiny/stage1.yml'}\ntrain: {{optim: {{type: Adam}}}}\n"
    )
    (tmp_path / "top.yml").write_text("_base_: base.yml\ntrain: {optim: {type: AdamW}}\n")
    optim = load(tmp_path / "top.yml", [], TrainConfig).train.optim
    assert (optim.type, optim.options["lr"]) == ("AdamW", 2e-3)
    optim = load(ROOT / "options/tiny/stage1.yml", [], TrainConfig).train.optim
    assert (optim.type, optim.options["betas"]) == ("Adam", (0.9, 0.99))  # without a type
    with pytest.raises(UserError, match=r"train\.optim\.type: no optimizer is named 'Adan'; did you mean 'Adam'"):
        load(tmp_path / "top.yml", ["train.optim.type=Adan"], TrainConfig)
    with pytest.raises(UserError, match=r"train\.optim\.beta: unknown option; did you mean 'betas'"):
        load(tmp_path / "top.yml", ["train.optim.beta=0.9"], TrainConfig)


def test_plugins_add_up_and_same_file_names_do_not_clash(tmp_path: Path) -> None:
    body = "from keep.config.registry import LOSSES\n@LOSSES.register()\nclass {}:\n    def __init__(self): pass\n"
    for n in (1, 2):
        (tmp_path / f"p{n}").mkdir()
        (tmp_path / f"p{n}/mine.py").write_text(body.format(f"PluginLoss{n}"))
    (tmp_path / "base.yml").write_text(f"_base_: {ROOT / 'options/tiny/stage1.yml'}\nplugins: [p1/mine.py]\n")
    (tmp_path / "top.yml").write_text("_base_: base.yml\nplugins: p2/mine.py\nmodel: {pixel: {type: PluginLoss1}}\n")
    config = load(tmp_path / "top.yml", ["model.codebook={type: PluginLoss2}"], TrainConfig)
    assert [p.parent.name for p in config.plugins] == ["p1", "p2"]
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere/options.yml"
    copy.write_text(to_yaml(config))
    assert load(copy, [], TrainConfig) == config


def test_a_mapping_includes_a_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text("a:\n  b: {x: 1, y: 2}\n")
    (tmp_path / "top.yml").write_text("c:\n  d: {_base_: base.yml#a.b, y: 3}\n  e:\n    _base_: [base.yml]\n")
    source = read_yaml(tmp_path / "top.yml")
    assert source.data == {"c": {"d": {"x": 1, "y": 3}, "e": {"a": {"b": {"x": 1, "y": 2}}}}}
    assert source.where(("c", "d", "x")).endswith("base.yml:2")
    assert source.where(("c", "d", "y")).endswith("top.yml:2")
    (tmp_path / "top.yml").write_text("c: {_base_: base.yml#a.z}\n")
    with pytest.raises(UserError, match=r"top\.yml:1: _base_: .*base\.yml has no mapping a\.z"):
        read_yaml(tmp_path / "top.yml")


A1 = {"mild": ((2, 5), (0, 5), (18, 25)), "medium": ((5, 10), (5, 10), (25, 35)), "heavy": ((5, 10), (5, 10), (35, 45))}
"""Table A1: split → σ of the blur, noise, CRF."""


def ranges(data: Any) -> tuple[tuple[float, ...], ...]:
    steps = {s.type: s.options for s in data.options["degradation"]}
    sigmas = sigmas_at(data.options["degradation"], data.options["size"])
    return sigmas["GaussianBlur"], sigmas["GaussianNoise"], steps["VideoCodec"]["crf"]


def sigmas_at(steps: Any, size: int) -> dict[str, tuple[float, float]]:
    """Step → the range of its σ on clips of this size."""
    return {type(s).__name__: s.sigma for s in Pipeline([s.build() for s in steps], size).steps if hasattr(s, "sigma")}


@pytest.mark.parametrize(
    ("path", "blur", "noise"),
    [
        ("test/vfhq.yml", 1, 1),
        ("tiny/test.yml", 96 / 512, 1),
        ("nano/test.yml", 128 / 512, 128 / 512),
        ("lite/test.yml", 0.5, 0.5),
    ],
)
def test_the_splits_of_all_sizes_are_those_of_table_a1(path: str, blur: float, noise: float) -> None:
    found = {k: ranges(v) for k, v in load(ROOT / "options" / path, [], TestConfig).data.items()}
    assert found == {k: (tuple(v * blur for v in b), tuple(v * noise for v in n), c) for k, (b, n, c) in A1.items()}


@pytest.mark.parametrize("stage", ["stage2_kalman", "stage3_video"])
def test_validation_is_on_table_a1_s_medium(stage: str) -> None:
    val: Any = load(ROOT / f"options/train/{stage}.yml", [], TrainConfig).data.val
    assert ranges(val) == A1["medium"]
    assert val.options["degradation"][3].options["fps"] == 25


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("_base_: b.yml\n")
    (tmp_path / "b.yml").write_text("_base_: a.yml\n")
    with pytest.raises(UserError, match="includes itself"):
        read_yaml(tmp_path / "a.yml")


def test_overrides_are_typed_by_the_schema() -> None:
    path = ROOT / "options/tiny/stage2.yml"
    config = load(
        path, ["train.optim.lr=3e-4", "model.net.flow={type: dis, preset: fast}", "data.val=null"], TrainConfig
    )
    assert config.train.optim.options["lr"] == 3e-4
    assert config.model.options["net"].options["flow"].options["preset"] == "fast"
    config = load(path, ["model.net.flow.preset=fast", "data.train.degradation.0.sigma=[1, 2]"], TrainConfig)
    assert config.model.options["net"].options["flow"].options["preset"] == "fast"
    assert config.data.train.options["degradation"][0].options["sigma"] == (1, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        "train.iters",
        "=3",
        "train.iters=[",
        "train.itres=3",
        "train.iters=-1",
        "modle.x=1",
        "plugins.7=a",
    ],
)
def test_a_wrong_override_is_named(wrong: str) -> None:
    with pytest.raises(UserError, match=r"--set"):
        load(ROOT / "options/tiny/stage1.yml", [wrong], TrainConfig)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "expected a mapping"),
        ("a: 1\na: 2\n", "given twice"),
        ("name: {{ foo }}\n", "plain word"),
        ("_base_: [5]\n", "_base_: expected a file name"),
        ("a: \x00\n", "not valid YAML"),
    ],
)
def test_unreadable_yaml_is_named_with_its_file(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text)
    with pytest.raises(UserError, match=reason) as refused:
        load(path, [], TrainConfig)
    assert "x.yml" in str(refused.value)


def test_a_missing_or_binary_options_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the options file .*nothing\.yml"):
        load(tmp_path / "nothing.yml", [], TrainConfig)
    (tmp_path / "x.yml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="not a text file"):
        load(tmp_path / "x.yml", [], TrainConfig)


def test_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text("a: 3e-4\nb: -1E5\nc: 3\nd: 1e\n")
    assert read_yaml(tmp_path / "x.yml").data == {"a": 3e-4, "b": -1e5, "c": 3, "d": "1e"}


def test_options_are_frozen() -> None:
    config = load(ROOT / "options/tiny/stage1.yml", [], TrainConfig)
    with pytest.raises(Exception, match="frozen"):
        config.seed = 3


def test_schema_covers_the_shipped_files_and_is_up_to_date() -> None:
    # In a separate process: other tests register plugins.
    printed = subprocess.run(
        [sys.executable, "-m", "keep.train", "--schema"], capture_output=True, cwd=ROOT, check=True
    )
    schema = json.loads(printed.stdout)
    models = ["ConfidenceModel", "KalmanModel", "RegressionModel", "VQGANModel", "VideoModel"]
    assert schema["$defs"]["model"]["anyOf"][0]["enum"] == models
    shipped = json.loads((ROOT / "options/schema.json").read_text())
    assert shipped == schema, "run: python -m keep.train --schema > options/schema.json"
    jsonschema = pytest.importorskip("jsonschema")
    for path in [*TRAIN_FILES, *SMALL_FILES, *BASELINE_FILES, *TEST_FILES]:
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)


def test_explain_tells_type_value_and_meaning_of_every_option() -> None:
    text = explain(TrainConfig, load(ROOT / "options/tiny/stage2.yml", [], TrainConfig))
    assert "train.optim.lr  (float)  = 0.003\n      learning rate before the schedule." in text
    assert "data.train.degradation.0.sigma  ([float, float])  = [2.0, 10.0]" in text
    general = explain(TrainConfig)
    assert "loss L1:" in general
    assert "arch KEEP:" in general
    bare = [row for row, below in zip(general.splitlines(), [*general.splitlines()[1:], ""], strict=True)
            if "  (" in row and "  (" in below and not below.startswith("      ")]  # fmt: skip
    assert bare == [], f"options with no meaning: {bare}"


def test_check_reports_where_a_merged_value_came_from(tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text((ROOT / "options/tiny/stage1.yml").read_text())
    (tmp_path / "top.yml").write_text("_base_: base.yml\ntrain: {iters: many}\n")
    source = override(merge(read_yaml(tmp_path / "top.yml"), read_yaml(tmp_path / "top.yml")), "seed=x")
    with pytest.raises(UserError) as refused:
        check(source, TrainConfig, "top.yml")
    assert "top.yml:2  train.iters" in str(refused.value)
    assert "--set seed  seed:" in str(refused.value)
