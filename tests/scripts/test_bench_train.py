"""scripts/bench/train.py: the naive step equals the real one, and the tables are complete."""

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import KEEP_NET, NET

from keep.training.run import build_run
from keep.training.trainer import train_step
from keep.utils.errors import UserError
from scripts.bench.train import Contender, bench, parse
from scripts.bench.train_naive import all_in_autograd
from scripts.bench.train_options import batch_of, choices, options

CPU = torch.device("cpu")


def args(stage: int, *more: str, size: str = "tiny"):
    shrink = [*(NET if stage == 1 else KEEP_NET), "data.train.size=32", "data.clips_per_step=1", "data.workers=0"]
    changes = [x for assignment in shrink for x in ("--set", assignment)]
    return parse(["--stages", str(stage), "--size", size, *changes, *more])


def step(naive: bool) -> Contender:
    given = args(3)
    config = options(given, 3)
    run = build_run(config, start=False)
    if naive:
        all_in_autograd(run)
    contender = Contender(run, batch_of(config, CPU))
    for part in (run.recipe.net.cft, run.recipe.net.cfa):  # zero last layers would block the gradients of the rest
        for parameter in part.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return contender


def test_the_naive_step_has_the_same_gradients_and_computes_all_others() -> None:
    found = []
    for naive in (False, True):
        contender = step(naive)
        terms = train_step(contender.run, [contender.batch]).terms
        found.append((terms, dict(contender.run.recipe.named_parameters())))
    (terms, ours), (naive_terms, everything) = found
    assert terms.keys() == naive_terms.keys() >= {"pixel", "temporal", "gan", "d"}
    for name, value in terms.items():
        torch.testing.assert_close(naive_terms[name], value)
    trained = {k for k, p in ours.items() if p.grad is not None}
    assert {k.split(".")[1] for k in trained if k.startswith("net.")} == {"cft", "cfa"}
    for name in trained:
        torch.testing.assert_close(everything[name].grad, ours[name].grad, rtol=1e-3, atol=1e-6)
    reached = {k.split(".")[1] for k, p in everything.items() if k.startswith("net.") and p.grad is not None}
    assert reached == {"cft", "cfa", "generator", "lq_encoder", "codebook"}


def test_every_speed_option_is_off_in_the_plain_step() -> None:
    for stage in (1, 2, 3):
        given = args(stage)
        config = options(given, stage)
        train = config.train
        assert (train.amp, train.tf32, train.channels_last, train.compile) == (None, False, False, ())
        assert not train.optim.options["fused"]
        for name, changes in choices(stage, CPU).items():
            assert (options(given, stage, *changes) == config) == (name == "frozen")
    assert "fp16" not in choices(3, CPU)
    assert "fp16" in choices(3, torch.device("cuda"))
    assert "checkpointing" not in choices(2, CPU)


def test_the_scales_of_the_network_shrink_with_the_frames() -> None:
    given = parse(["--stages", "2", "--size", "released", "--image-size", "128", "--frames", "3", "--batch", "1"])
    config = options(given, 2)
    net = config.model.options["net"].options
    assert (net["image_size"], net["channels"], net["ch_mult"]) == (128, 64, (1, 2, 2, 4, 4, 8))
    assert (net["attn_resolutions"], net["cft_scales"], net["cfa_scales"]) == ((4,), (4, 8, 16), (4, 8))
    batch = batch_of(config, CPU)
    assert batch["gt"].shape == (1, 3, 3, 128, 128)
    assert batch["lq"].shape == (1, 3, 3, 32, 32)
    assert batch["gt"].abs().max() <= 1.5


def test_the_script_writes_a_table_and_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.md"
    changes = [x for assignment in args(2).set for x in ("--set", assignment)]
    arguments = ["--rounds", "1", "--options", "channels_last", "--data-steps", "2", "--out", str(out)]
    bench(["--stages", "2", *arguments, *changes])
    text = out.read_text()
    assert capsys.readouterr().out == text
    assert "| channels_last |" in text
    assert "waiting for data" in text
    timed, waited = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert timed["samples/s with"] == pytest.approx(1 / timed["s a step with"])
    assert waited["s a step"] > 0
    assert 0 <= float(waited["waiting for data"].removesuffix("%")) <= 100


def test_gmflow_runs_with_random_weights() -> None:
    config = options(args(2, "--flow", "GMFlow"), 2)
    assert config.model.options["net"].options["flow"].build().trained


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(UserError, match="--options fast: known: frozen, channels_last"):
        parse(["--options", "fast"])
