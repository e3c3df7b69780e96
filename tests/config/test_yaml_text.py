"""Options files as text: values as written, and files that are no options files."""

from pathlib import Path
from typing import Any

import pytest

from keep.config.reading import load, to_yaml
from keep.config.schema import TrainConfig
from keep.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
BASE = f"_base_: {ROOT / 'options/tiny/stage3.yml'}\n"

WORDS = [
    "0010", "1e5", "1_000", "0x1F", "0o17", "0b11", "1.10", "007.50", "2024-01-31", "true", "False", "yes", "off",
    "null", "NaN",
]  # fmt: skip


def train(tmp_path: Path, text: str, *overrides: str) -> TrainConfig:
    (tmp_path / "x.yml").write_bytes((BASE + text).encode("utf-8", "surrogatepass"))
    return load(tmp_path / "x.yml", overrides, TrainConfig)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    """The one line after the headline, or the headline if that is all."""
    with pytest.raises(UserError) as refused:
        train(tmp_path, text, *overrides)
    lines = str(refused.value).splitlines()
    assert len(lines) <= 2
    assert all(len(line) < 1000 for line in lines)
    return lines[-1]


# --- text as written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", WORDS)
def test_an_option_that_takes_text_gets_it_as_written(tmp_path: Path, word: str) -> None:
    assert train(tmp_path, f"name: {word}\n").name == word
    assert train(tmp_path, "", f"name={word}").name == word
    (tmp_path / "base.yml").write_text(f"{BASE}name: {word}\n")
    (tmp_path / "top.yml").write_text("_base_: base.yml\nseed: 3\n")
    config = load(tmp_path / "top.yml", [], TrainConfig)
    assert config.name == word
    (tmp_path / "copy.yml").write_text(to_yaml(config))
    assert load(tmp_path / "copy.yml", [], TrainConfig) == config


def test_so_do_lists_mappings_their_keys_and_options_of_registered_classes(tmp_path: Path) -> None:
    config = train(
        tmp_path,
        "root: 2024\n"
        "train: {compile: [0010, 1e5, 12:30]}\n"
        "log: {trackers: [{type: WandB, project: 12:30, entity: 1e5, tags: [1.0, no, 012]}]}\n"
        "pretrained: {0010: 0020, 1e5: {path: 0.50, allow: [010]}}\n"
        "data: {train: {root: 12:30, lq_cache: 08}}\n"
        "device: &d 007\n",
        "val.metrics=[]",
    )
    assert config.root == Path("2024")
    assert config.train.compile == ("0010", "1e5", "12:30")
    (tracker,) = config.log.trackers
    assert tracker.options == {"project": "12:30", "entity": "1e5", "tags": ("1.0", "no", "012"), "mode": "online"}
    assert config.pretrained["0010"] == Path("0020")
    nested: Any = config.pretrained["1e5"]
    assert (nested.path, nested.allow) == (Path("0.50"), ("010",))
    assert (config.data.train.options["root"], config.data.train.options["lq_cache"]) == ("12:30", "08")
    assert config.device == "007"


def test_an_alias_and_a_merge_carry_the_text(tmp_path: Path) -> None:
    text = "device: &number 0010\nname: *number\nlog: {trackers: [{type: WandB, project: &p 1e5, tags: [*p]}]}\n"
    config = train(tmp_path, text)
    assert (config.name, config.log.trackers[0].options["tags"]) == ("0010", ("1e5",))
    merged = train(tmp_path, "log: {trackers: [{<<: {type: WandB, project: 0010}, entity: 07}]}\n").log.trackers[0]
    assert (merged.options["project"], merged.options["entity"]) == ("0010", "07")


@pytest.mark.parametrize("text", ["/a/b #1", "my: folder", "a, b", "[old]", "*x", "!x", "50%", "@home"])
def test_an_override_of_a_text_option_is_taken_as_typed(tmp_path: Path, text: str) -> None:
    assert str(train(tmp_path, "", f"root={text}").root) == text
    assert train(tmp_path, "", f"data.train.root={text}").data.train.options["root"] == text


def test_numbers_booleans_and_null_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    config = train(
        tmp_path, "seed: 0010\ntrain: {iters: 1e3, tf32: yes, grad_clip: ~, ema: .5, warmup: 0x10, channels_last: on}\n"
    )
    assert (config.seed, config.train.iters, config.train.ema, config.train.warmup) == (10, 1000, 0.5, 16)
    assert (config.train.tf32, config.train.channels_last, config.train.grad_clip) == (True, True, None)
    assert "train.iters: Input should be a valid integer" in refusal(tmp_path, "train: {iters: 12:30}\n")
    assert "(got 012.5)" in refusal(tmp_path, "train: {iters: 012.5}\n")  # as written


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("train: {iters: true}\n", "train.iters"),
        ("seed: false\n", "seed"),
        ("data: {train: {tone_jitter: [true, 0]}}\n", "data.train.tone_jitter.0"),
        ("train: {lr_scale: {kalman_filter: false}}\n", "train.lr_scale.kalman_filter"),
        ("model: {net: {ch_mult: [1, true, 2, 2]}}\n", "model.net.ch_mult.1"),
    ],
)
def test_a_boolean_is_no_number(tmp_path: Path, text: str, place: str) -> None:
    assert f"  {place}: expected a number, not true or false" in refusal(tmp_path, text)


# --- files that are none -------------------------------------------------------------------------------------------


def bomb(merge: bool) -> str:
    """Nine aliases of ten aliases each: a thousand million values."""
    lines = ["a0: &a0 {k: v}"]
    for i in range(1, 10):
        ten = ", ".join([f"*a{i - 1}"] * 10)
        lines.append(f"a{i}: &a{i} {{<<: [{ten}]}}" if merge else f"a{i}: &a{i} [{ten}]")
    return "\n".join(lines)


NESTED = "more than 32 mappings and lists inside each other"
HOSTILE = {
    "type a list": ("model: {type: [KEEP]}\n", "x.yml:2  model.type: expected one name; known: ConfidenceModel"),
    "type a mapping": ("model: {net: {type: {a: b}}}\n", "x.yml:2  model.net.type: expected one name"),
    "type of a step": ("data: {train: {degradation: [{type: []}]}}\n", "x.yml:2  data.train.degradation.0.type"),
    "type a number": ("model: {type: 5}\n", "no model is named '5'"),
    "a long number": (f"seed: {'9' * 5000}\n", "x.yml:2  seed: "),
    "a long negative number": (f"train: {{iters: -{'9' * 5000}}}\n", "x.yml:2  train.iters: "),
    "a long fraction": (f"train: {{ema: 0.{'9' * 5000}}}\n", "x.yml:2  train.ema: "),
    "a long exponent": ("train: {ema: 1e99999}\n", "x.yml:2  train.ema: "),
    "an impossible date": ("seed: 2024-99-99\n", "x.yml:2  seed: "),
    "an impossible time": ("seed: 2024-01-01T99:99:99Z\n", "x.yml:2  seed: "),
    "nested lists": ("a: " + "[" * 1500 + "]" * 1500, f"x.yml:2: {NESTED}"),
    "nested mappings": ("a: " + "{b: " * 1500 + "}" * 1500, f"x.yml:2: {NESTED}"),
    "nested lines": ("\n".join(" " * i + "a:" for i in range(400)), NESTED),
    "an unclosed nest": ("a: " + "[" * 100_000, f"x.yml:2: {NESTED}"),
    "aliases that nest": ("a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60)), NESTED),
    "an unknown user": ("plugins: ['~no-such-user/x.py']\n", "x.yml:2: plugins: ~no-such-user/x.py: "),
    "a list inside itself": ("a: &a [*a]\n", "x.yml:2: the alias *a is inside what it stands for"),
    "a mapping inside itself": ("a: &a {b: {c: *a}}\n", "x.yml:2: the alias *a is inside"),
    "a merge of itself": ("train: &t {<<: *t}\n", "x.yml:2: the alias *t is inside"),
    "a bomb of lists": (bomb(merge=False), "more than 20000 values"),
    "a bomb of merges": (bomb(merge=True), "more than 20000 values"),
    "a chain of merges": (
        "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}}}\n" for i in range(1, 900)), "than 20000 values"
    ),
    "an object": ("seed: !!python/object/apply:os.system [ls]\n", "the tag !!python/object/apply:os.system is not"),
    "a tagged number": ('seed: !!int "abc"\n', "x.yml:2: the tag !!int is not supported: remove it"),
    "binary": ("name: !!binary aGFsbG8=\n", "the tag !!binary"),
    "a set": ("train: !!set {a, b}\n", "the tag !!set"),
    "an own tag": ("seed: !seed 3\n", "the tag !seed"),
    "a tagged key": ("!!python/name:os.sep : 3\n", "the tag !!python/name:os.sep"),
    "a NUL byte": ("name: a\x00b\n", "x.yml:2: not valid YAML: the character U+0000"),
    "an escaped NUL": ('root: "a\\0b"\n', "x.yml:2: the character U+0000 is not allowed"),
    "half a character": ('root: "\\ud800"\n', "x.yml:2: the character U+D800 is not allowed"),
    "no character": ('root: "\\UFFFFFFFF"\n', "x.yml:2: not valid YAML: an escape of a character that does not exist"),
    "the key =": ("=: 1\n", "x.yml:2  =: unknown option"),
    "the value =": ("seed: =\n", "x.yml:2  seed: "),
    "a merge of a number": ("<<: 5\n", "x.yml:2: << needs a mapping or a list of mappings"),
    "a merge of numbers": ("train: {<<: [1, 2]}\n", "x.yml:2: << needs a mapping"),
    "a key of two lines": ('"a\\nb": 1\n', r"'a\nb': unknown option"),
    "a long key": (f"{'k' * 900}: 1\n", "kkk…: unknown option"),
    "no key": ("'': 1\n", "x.yml:2  '': unknown option"),
    "a long type": (f"model: {{type: {'K' * 5000}}}\n", "KKK…; known: "),
    "a long name": (f"name: {'n' * 5000}\n", "x.yml:2  name: "),
    "a long file": ("#" * 300_000, "x.yml: an options file has at most 256 KiB"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_is_none_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    text, message = HOSTILE[case]
    assert message in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (".".join("a" * 2000) + "=1", "a key of more than 32 parts"),
        ("seed=" + "[" * 5000, NESTED),
        ("seed=" + "9" * 5000, "--set seed  seed: "),
        ("root=a\x00b", "the character U+0000"),
        ("x=&a [*a]", "x: unknown option"),
        ("data.train.degradation." + "9" * 5000 + ".sigma=1", "is not an index of that list"),
        ("..=1", "unknown option"),
        ("k" * 5000, "expected key=value"),
    ],
)
def test_so_is_an_override(tmp_path: Path, override: str, message: str) -> None:
    assert message in refusal(tmp_path, "", override)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("~no-such-user/x.yml", "top.yml:2: _base_: ~no-such-user/x.yml: "),
        ("nothing.yml", "nothing.yml: there is no such file"),
        ('"a\\nb.yml"', "top.yml:2: _base_: expected a file name or a list of them"),
        ("n" * 5000, "there is no such file"),
        ("/dev/zero", "an options file has at most 256 KiB"),
        ("{a: b}", "top.yml:2: _base_: expected a file name"),
        ("top.yml", "top.yml includes itself"),
    ],
)
def test_a_base_that_is_none_is_named_with_the_line_that_names_it(tmp_path: Path, base: str, message: str) -> None:
    (tmp_path / "top.yml").write_text(f"seed: 1\n_base_: {base}\n")
    with pytest.raises(UserError) as refused:
        load(tmp_path / "top.yml", [], TrainConfig)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_number_of_included_files_is_limited(tmp_path: Path) -> None:
    for i in range(20):  # a chain
        (tmp_path / f"chain{i}.yml").write_text(f"_base_: chain{i + 1}.yml\n")
    with pytest.raises(UserError, match="too many files: at most 16 in a chain and 100 in all"):
        load(tmp_path / "chain0.yml", [], TrainConfig)
    for i in range(12):  # each includes the next one twice
        (tmp_path / f"twice{i}.yml").write_text(f"_base_: [twice{i + 1}.yml, twice{i + 1}.yml]\n")
    (tmp_path / "twice12.yml").write_text("seed: 1\n")
    with pytest.raises(UserError, match="too many files"):
        load(tmp_path / "twice0.yml", [], TrainConfig)
