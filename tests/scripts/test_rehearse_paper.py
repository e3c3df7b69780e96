"""scripts/rehearse_paper.py: it passes with the shipped options, and sees what it is there to see."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from keep.utils.errors import UserError
from scripts.rehearse_paper import STAGES, STEPS, Outcome, Stage, check, difference, main

STAGE = Stage("stage", (), frozenset({"a"}), same={"b": "a"})


@pytest.fixture
def outcome() -> Outcome:
    """A stage that trained ``a`` and left ``b`` alone."""
    before = {"a.w": torch.ones(3), "b.w": torch.ones(3)}
    after = {"a.w": torch.full((3,), 2.0), "b.w": torch.ones(3)}
    return Outcome(before, after, after, [{"loss/pixel": 1.0}] * STEPS, 0.0)


def test_a_stage_that_did_what_it_should_gives_a_row_a_part(outcome: Outcome) -> None:
    previous = replace(outcome, average={"a.w": torch.ones(3)})
    assert check(STAGE, outcome, previous) == [["a", "trains", 1, 1, 1.0], ["b", "frozen", 1, 0, 0.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"after": {"a.w": torch.ones(3), "b.w": torch.ones(3)}}, "a should train, and w stayed the same"),
        ({"after": {"a.w": torch.zeros(3), "b.w": torch.zeros(3)}}, "b is frozen, and w changed"),
        ({"losses": [{"loss/pixel": None}] * STEPS}, "step 1: not finite: loss/pixel"),
        ({"losses": [{"loss/pixel": 1.0}]}, f"1 of {STEPS} steps were recorded"),
    ],
)
def test_what_went_wrong_is_named(outcome: Outcome, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(STAGE, replace(outcome, **change), None)


def test_a_stage_that_does_not_start_from_the_one_before_is_named(outcome: Outcome) -> None:
    with pytest.raises(UserError, match=r"b\.w does not start as a\.w of the stage before"):
        check(STAGE, outcome, outcome)


def test_losses_of_two_processes_are_compared_in_the_steps_that_count(outcome: Outcome) -> None:
    later = replace(outcome, losses=[*outcome.losses[:-1], {"loss/pixel": 1.5}])
    assert difference(STAGE, outcome, later) == pytest.approx(1 / 3)
    assert difference(replace(STAGE, compared=STEPS - 1), outcome, later) == 0


@pytest.mark.slow
def test_the_options_of_the_paper_train_in_order(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "rehearsal")]) == 0
    table = (tmp_path / "rehearsal/table.md").read_text(encoding="utf-8")
    for stage in STAGES:
        for part in stage.trained:
            assert f"| {stage.name} | {part} | trains |" in table
