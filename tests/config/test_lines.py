"""An error names the line, or the argument, that sets the value."""

from pathlib import Path

import pytest

from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
STAGE = ROOT / "options/tiny/stage3.yml"


def mistakes(tmp_path: Path, files: dict[str, str], *overrides: str) -> list[str]:
    """The lines after the headline for the last of ``files``, without the folder."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as refused:
        load(tmp_path / list(files)[-1], overrides, TrainConfig)
    rows = str(refused.value).splitlines()
    return [row.strip().replace(f"{tmp_path}/", "") for row in rows[1:] or rows]


BASE = f"""_base_: {STAGE}
data:
  train:
    degradation:
      - type: GaussianBlur
        sigma: [1, 2]
      - type: VideoCodec
        crf: [20, 30]
log:
  profile:
    steps: 3
"""


@pytest.mark.parametrize(
    ("top", "overrides", "row"),
    [
        ("seed: 1\ntrain: {iters: many}\n", [], "top.yml:3  train.iters: "),
        # A list replaces the base's list, and what stood inside it.
        ("data:\n  train:\n    degradation: [5]\n", [], "top.yml:4  data.train.degradation.0: "),
        ("data:\n  train:\n    degradation:\n    - type: Blurr\n", [], "top.yml:5  data.train.degradation.0.type: "),
        ("data: {train: {degradation: [{type: GaussianBlur,\n  sigma: [1]}]}}\n", [], "top.yml:3  data.train.degr"),
        # A value replaces a mapping.
        ("seed: 1\nlog: 5\n", [], "top.yml:3  log: expected a mapping of options"),
        ("log:\n  profile: [x]\n", [], "top.yml:3  log.profile: expected a mapping of options"),
        # A mapping replaces a value.
        ("log:\n  profile:\n    steps: {a: b}\n", [], "top.yml:4  log.profile.steps: "),
        # Anchors and merges: the line where the value is written.
        ("val: &v\n  interval: few\nlog: {profile: null}\n", [], "top.yml:3  val.interval: "),
        ("val: {interval: &n\n  few}\ntrain: {iters: 5}\n", [], "top.yml:2  val.interval: "),
        ("data: {train: {size: &n few}}\nlog: {profile: {steps: 3}}\n", [], "top.yml:2  data.train.size: "),
        ("log:\n  profile: {<<: {start: 1,\n    steps: x}}\n", [], "top.yml:4  log.profile.steps: "),
        # The command line.
        ("train: {iters: 5}\n", ["train.iters=many"], "--set train.iters  train.iters: "),
        ("train: {iters: 5}\n", ["train={iters: many}"], "--set train  train.iters: "),
        ("", ["data.train.degradation=[{type: Blurr}]"], "--set data.train.degradation  data.train.degradation.0.t"),
        ("", ["data.train.degradation.1.crf=[1]"], "--set data.train.degradation.1.crf  data.train.degr"),
        ("", ["log.profile=5"], "--set log.profile  log.profile: "),
    ],
)  # fmt: skip
def test_the_line_that_set_the_value_is_named(tmp_path: Path, top: str, overrides: list[str], row: str) -> None:
    found = mistakes(tmp_path, {"base.yml": BASE, "top.yml": f"_base_: base.yml\n{top}"}, *overrides)
    assert any(line.startswith(row) for line in found), found


def test_an_alias_is_reported_at_its_anchor(tmp_path: Path) -> None:
    top = (
        f"_base_: {STAGE}\n"
        "seed: &number\n"
        "  many\n"
        "threads: *number\n"
        "val: &val\n"
        "  interval: few\n"
        "log:\n"
        "  <<: *val\n"
        "  keep_last: *number\n"
    )
    assert [row.partition(": ")[0] for row in mistakes(tmp_path, {"top.yml": top})] == [
        "top.yml:2  seed", "top.yml:2  threads", "top.yml:6  val.interval", "top.yml:6  log.interval",
        "top.yml:2  log.keep_last",
    ]  # fmt: skip


def test_an_own_key_wins_over_a_merged_one_and_the_first_merged_mapping_over_the_next(tmp_path: Path) -> None:
    top = (
        f"_base_: {STAGE}\n"
        "log:\n"
        "  <<:\n"
        "  - {interval: a, keep_last: b}\n"
        "  - {interval: 3, keep_last: 4, save_interval: c}\n"
        "  interval: 7\n"
    )
    found = {row.partition(": ")[0] for row in mistakes(tmp_path, {"top.yml": top})}
    assert found == {"top.yml:4  log.keep_last", "top.yml:5  log.save_interval"}


def test_a_part_of_a_base_keeps_its_lines(tmp_path: Path) -> None:
    part = "a:\n  b:\n    interval: few\n    keep_last: 0010\n    best_metric: 0010\n"
    top = f"_base_: {STAGE}\nlog:\n  _base_: part.yml#a.b\n"
    found = mistakes(tmp_path, {"part.yml": part, "top.yml": top})
    assert [row.partition(": ")[0] for row in found] == ["part.yml:3  log.interval"]


def test_a_missing_plugin_is_reported_with_the_line_that_names_it(tmp_path: Path) -> None:
    base = f"_base_: {STAGE}\nplugins:\n- mine.py\n"
    (tmp_path / "mine.py").write_text("")
    (found,) = mistakes(tmp_path, {"base.yml": base, "top.yml": "_base_: base.yml\nplugins:\n- other.py\n"})
    assert found == "top.yml:3  plugins: there is no file other.py"


def test_the_branches_of_a_union_are_one_line(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, {"top.yml": f"_base_: {STAGE}\npretrained: {{keep: [1]}}\n"})
    assert found == "top.yml:2  pretrained.keep: expected a path, or expected a mapping of options"
    (found,) = mistakes(tmp_path, {"top.yml": f"_base_: {STAGE}\npretrained: {{keep: {{path: x, part: y}}}}\n"})
    assert found == "top.yml:2  pretrained.keep.part: unknown option; did you mean 'parts'?"
