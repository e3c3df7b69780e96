"""The evaluator: what it asks of restorers and metrics, what it adds up, what it does when something fails."""

import math
import os

import numpy as np
import pytest
import torch

from keep.data.frames import to_uint8
from keep.evaluation import evaluate as evaluation
from keep.evaluation.evaluate import ClipScore, Failure, Table, evaluate, score_clip
from keep.metrics.base import Clip, Metric, SetMetric
from keep.utils.clock import Clock
from keep.utils.errors import UserError

CPU = torch.device("cpu")


class Dataset:
    """Clips of noise; clip i has 2 + i frames."""

    def __len__(self):
        return 4

    def __getitem__(self, key):
        generator = torch.Generator().manual_seed(key[0] * 100 + key[1])
        gt = torch.randint(0, 256, (2 + key[1], 3, 16, 16), generator=generator, dtype=torch.uint8)
        return {"gt": gt, "lq": gt[..., ::4, ::4], "name": f"clip{key[1]}", "degradation": '[{"type": "x"}]'}


class Error(Metric):
    """Mean absolute error; no value where the first pixel of the truth is odd, as if no face were found."""

    name, higher_is_better = "error", False

    def __init__(self):
        self.truths = []

    def measure(self, output: Clip, target: Clip):
        self.truths.append(target)
        values = (output.frames.double() - target.frames.double()).abs().mean(dim=(1, 2, 3)).numpy()
        values[target.frames[:, 0, 0, 0].numpy() % 2 == 1] = np.nan
        return values


class Means(SetMetric):
    """Distance of the means of two sets."""

    name, higher_is_better = "means", False

    def samples(self, clip):
        return clip.frames.double().mean(dim=(1, 2, 3))[:, None].numpy()

    def value(self, outputs, targets):
        if len(outputs) < 2:
            raise UserError("means needs two clips")
        return float(abs(np.concatenate(outputs).mean() - np.concatenate(targets).mean()))


class NoFace(Metric):
    name, higher_is_better = "IDS (none)", True

    def measure(self, output, target):
        raise UserError("no face in any frame")


def nearest(lq):
    return lq.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)


def grey(lq):
    return torch.zeros_like(nearest(lq))


def test_means_are_over_frames_then_over_clips_and_a_missing_value_is_no_zero():
    table = evaluate({"nearest": nearest}, Dataset(), [Error()], CPU, seed=3)
    by_hand = []
    for i in range(4):
        sample = Dataset()[3, i]
        error = (nearest(sample["lq"]).double() - sample["gt"].double()).abs().mean(dim=(1, 2, 3))
        seen = error[sample["gt"][:, 0, 0, 0] % 2 == 0]
        by_hand.append(seen.mean().item() if len(seen) else math.nan)
        score = table.scores[i]
        assert score.missing["error"] == len(error) - len(seen)
        assert math.isnan(score.scores["error"]) == (len(seen) == 0)
    assert np.isnan(by_hand).sum() + sum(s.missing["error"] for s in table.scores) > 0
    np.testing.assert_allclose(table.column("nearest", "error"), by_hand)
    assert table.mean("nearest", "error") == pytest.approx(np.nanmean(by_hand))
    assert table.scores[0].degradation == '[{"type": "x"}]'


def test_shards_merge_to_the_whole_table():
    restorers = {"nearest": nearest, "grey": grey}
    whole = evaluate(restorers, Dataset(), [Error(), Means()], CPU)
    shards = [
        evaluate(restorers, Dataset(), [Error(), Means()], CPU, clips=range(rank, 4, 3)) for rank in range(3)
    ]  # fmt: skip
    merged = Table.merged(shards[::-1])
    assert [(s.index, s.restorer) for s in merged.scores] == [(s.index, s.restorer) for s in whole.scores]
    for name in restorers:
        np.testing.assert_array_equal(merged.column(name, "error"), whole.column(name, "error"))
        assert merged.pooled(name, Means()) == whole.pooled(name, Means())


def test_the_truth_is_one_clip_for_all_restorers_so_that_its_faces_are_found_once():
    metric = Error()
    evaluate({"a": nearest, "b": grey}, Dataset(), [metric], CPU, clips=[1])
    first, second = metric.truths
    assert first is second


def test_without_lq_the_truth_is_the_input():
    class Plain(Dataset):
        def __getitem__(self, key):
            sample = super().__getitem__(key)
            return {"gt": sample["gt"], "name": sample["name"]}

    table = evaluate({"same": lambda x: x}, Plain(), [Error()], CPU)
    assert table.mean("same", "error") == 0


def test_panels_are_what_was_scored():
    seen = {}
    evaluate(
        {"nearest": nearest}, Dataset(), [], CPU, on_clip=lambda i, name, panels: seen.update({name: panels}), clips=[2]
    )
    assert list(seen["clip2"]) == ["input", "nearest", "truth"]
    sample = Dataset()[0, 2]
    assert torch.equal(seen["clip2"]["nearest"], nearest(sample["lq"]))
    assert torch.equal(seen["clip2"]["truth"], sample["gt"])


@pytest.mark.parametrize(
    ("restorer", "says"),
    [
        (lambda lq: nearest(lq)[:-1], r"clip clip0: returned 1 frames of 16×16 for an input of 2 frames of 4×4, but"),
        (lambda lq: lq, r"2 frames of 4×4 .*ground truth is 2 frames of 16×16"),
        (lambda lq: nearest(lq)[0], "an array"),
    ],
)
def test_another_length_or_size_is_reported_in_one_line(restorer, says):
    with pytest.raises(UserError, match=says):
        evaluate({"bad": restorer}, Dataset(), [Error()], CPU)


def test_a_panels_name_is_refused():
    with pytest.raises(UserError, match="truth is the name of a panel"):
        evaluate({"truth": nearest}, Dataset(), [], CPU)


def test_failures_are_reported_and_the_rest_continues():
    def broken(lq):
        raise ZeroDivisionError("oh\nno")

    reported = []
    result = score_clip(
        Dataset()[0, 1], 1, {"broken": broken, "nearest": nearest}, [NoFace(), Error(), Means()], Clock(CPU),
        lambda failure, error: reported.append((failure, type(error))),
    )  # fmt: skip
    assert reported == [
        (Failure("broken", None, "ZeroDivisionError: oh no"), ZeroDivisionError),
        (Failure("nearest", "IDS (none)", "no face in any frame", lasting=True), UserError),
    ]
    assert result.failures == [failure for failure, _ in reported]
    assert [s.restorer for s in result.scores] == ["nearest"]
    score = result.scores[0]
    assert np.isnan(score.per_frame["IDS (none)"]).all()
    assert math.isnan(score.scores["IDS (none)"])
    assert score.missing["IDS (none)"] == 3
    assert np.isfinite(score.scores["error"]) or score.missing["error"] == 3
    assert "means" in score.samples
    assert list(result.panels) == ["input", "nearest", "truth"]


def test_the_clock_knows_every_part_and_the_restorers_memory():
    clock = Clock(CPU)
    score_clip(Dataset()[0, 0], 0, {"nearest": nearest}, [Error()], clock)
    assert clock.seconds.keys() == {"restore nearest", "metric error"}
    assert clock.memory.keys() == {"restore nearest"}
    assert clock.memory["restore nearest"] > 2**20


def test_a_clip_without_a_score_leaves_the_others_mean():
    scores = [ClipScore(str(i), "r", i, 1, {}, {"m": v}, {}) for i, v in enumerate([1.0, math.nan, 3.0])]
    table = Table(scores)
    assert table.mean("r", "m") == 2.0
    assert math.isnan(table.mean("r", "other"))
    assert math.isnan(table.mean("nobody", "m"))


def test_outputs_are_rounded_to_uint8_before_they_are_scored():
    def almost(lq):
        return nearest(lq) + 0.3 / 127.5

    panels = {}
    evaluate({"almost": almost}, Dataset(), [], CPU, on_clip=lambda i, n, p: panels.update(p), clips=[0])
    assert torch.equal(panels["almost"], nearest(panels["input"]))
    assert panels["almost"].dtype == to_uint8(torch.zeros(1)).dtype == torch.uint8


class Tracked(Dataset):
    """Names each clip by the process that read it."""

    def __getitem__(self, key):
        return {**super().__getitem__(key), "name": str(os.getpid())}


def test_workers_read_the_clips_and_change_no_number() -> None:
    names: list[str] = []
    tables = [
        evaluate({"a": nearest}, Tracked(), [Error()], CPU, seed=3, on_clip=lambda *x: names.append(x[1]), workers=n)
        for n in (0, 2)
    ]
    assert np.array_equal(tables[0].column("a", "error"), tables[1].column("a", "error"), equal_nan=True)
    assert set(names[:4]) == {str(os.getpid())}
    assert str(os.getpid()) not in names[4:]
    assert len(names) == 8


def test_the_bar_can_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden: list[bool] = []

    def bar(items, *, disable: bool, **_):
        hidden.append(disable)
        return items

    monkeypatch.setattr(evaluation, "progress_bar", bar)
    for shown in (True, False):
        evaluate({"a": nearest}, Dataset(), [Error()], CPU, bar=shown)
    assert hidden == [False, True]
