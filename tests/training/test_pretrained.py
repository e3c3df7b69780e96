"""Weights that a run starts from: they are complete, trained, and of the network that the options build."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn as nn
from tiny_runs import options_and_start

from keep.archs.public import to_public
from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.flow.dis import DIS
from keep.flow.gmflow import GMFlow
from keep.training.guards import warn_of_cpu_flow
from keep.training.run import Run, build_run
from keep.training.trainer import train
from keep.utils import weight_files
from keep.utils.errors import UserError

TRAINED = "model.net.flow={type: GMFlow, random_weights: true}"


@pytest.fixture
def tiny_start(clips: Path, tmp_path: Path) -> Callable[..., tuple[Path, list[str]]]:
    """(stage, *overrides) → a tiny run that starts from random weights of the stage before."""
    return lambda stage, *more: options_and_start(stage, clips, tmp_path / "experiments", *more)


@pytest.fixture
def run_of(tiny_start: Callable[..., tuple[Path, list[str]]]):
    """(stage, *overrides) → the run, built with its pretrained weights."""

    def build(stage: int, *more: str):
        path, overrides = tiny_start(stage, *more)
        return build_run(load(path, overrides, TrainConfig))

    return build


def stage2_file(path: Path, run: Run, **arch: object) -> Path:
    """A checkpoint of stage II whose network is that of a run, stored as trained with other options."""
    stored = run.config.model.options["net"].dump() | arch
    weight_files.save(path, {"params": run.recipe.net.state_dict(), "arch": stored})
    return path


def test_a_random_gmflow_is_refused_before_the_first_step(run_of) -> None:
    with pytest.raises(UserError, match=r"GMFlow has no weights; .*gmflow_sintel-0c07dcb3\.pth"):
        run_of(2, "model.net.flow=GMFlow")


def test_gmflow_takes_the_weights_of_the_file_that_starts_the_run(run_of, tmp_path, caplog) -> None:
    before = run_of(2, TRAINED)
    path = stage2_file(tmp_path / "keep.pth", before)
    flow = ["model.net.flow=GMFlow", "model.flow=null", f"pretrained.keep={path}"]
    with caplog.at_level("INFO", "keep"):
        run = run_of(3, *flow)
    assert "the flow estimator's weights are those of this file" in caplog.text
    for name, value in before.recipe.net.flownet.state_dict().items():
        assert torch.equal(run.recipe.net.flownet.state_dict()[name], value), name


def test_gmflow_with_its_own_file_keeps_its_weights(run_of, tmp_path) -> None:
    path = stage2_file(tmp_path / "keep.pth", run_of(2, TRAINED))
    own = GMFlow(random_weights=True)
    torch.save({"model": own.state_dict()}, tmp_path / "gmflow.pth")
    flow = f"model.net.flow={{type: GMFlow, weights: {tmp_path / 'gmflow.pth'}}}"
    run = run_of(3, flow, f"pretrained.keep={path}")
    filled = run.recipe.net.flownet.state_dict()
    assert torch.equal(filled["upsampler.0.weight"], own.state_dict()["upsampler.0.weight"])


def test_a_missing_file_of_gmflow_is_named_with_its_source(run_of) -> None:
    with pytest.raises(UserError, match=r"there is no file none\.pth; set its option weights .* to the official file"):
        run_of(2, "model.net.flow={type: GMFlow, weights: none.pth}")


@pytest.mark.parametrize(
    ("option", "value"),
    [("temporal", "clip"), ("transformer_heads", 4), ("norm_groups", 4), ("flow", {"type": "raft", "size": "small"})],
)
def test_weights_of_another_network_with_equal_shapes_are_refused(run_of, tmp_path, option, value) -> None:
    path = stage2_file(tmp_path / "keep.pth", run_of(2), **{option: value})
    with pytest.raises(UserError, match=rf"pretrained\.keep: .* was trained as another network: {option} is ") as error:
        run_of(3, f"pretrained.keep={path}")
    assert f"allow: [{option}]" in str(error.value)
    run_of(3, f"pretrained.keep={{path: {path}, allow: [{option}]}}")


def test_a_public_file_does_not_fill_a_causal_network(run_of, tmp_path) -> None:
    path = tmp_path / "public.pth"
    torch.save({"params_ema": to_public(run_of(2).recipe.net.state_dict())}, path)
    with pytest.raises(UserError, match="temporal is clip in the file and causal in the options"):
        run_of(3, f"pretrained.keep={path}", "model.net.norm_groups=32")


def test_a_vqgan_of_other_groups_does_not_start_stage_two(run_of, tmp_path) -> None:
    stage1 = run_of(1, "model.net.norm_groups=4")
    arch = stage1.config.model.options["net"].dump()
    weight_files.save(tmp_path / "vqgan.pth", {"params": stage1.recipe.net.state_dict(), "arch": arch})
    with pytest.raises(UserError, match=r"pretrained\.vqgan: .*norm_groups is 4 in the file and 1 in the options"):
        run_of(2, f"pretrained.vqgan={tmp_path / 'vqgan.pth'}")


def test_only_the_named_parts_are_filled(run_of, tmp_path) -> None:
    other = run_of(2, "seed=5")
    for parameter in other.recipe.net.parameters():
        parameter.data.fill_(0.5)
    path = stage2_file(tmp_path / "keep.pth", other)
    net = run_of(3, f"pretrained.keep={{path: {path}, parts: [code_transformer, lq_encoder]}}").recipe.net
    assert all((p == 0.5).all() for part in (net.code_transformer, net.lq_encoder) for p in part.parameters())
    assert not any((p == 0.5).all() for p in net.hq_encoder.parameters())
    with pytest.raises(UserError, match=r"pretrained\.keep: tq: no such part of net; parts: lq_encoder, "):
        run_of(3, f"pretrained.keep={{path: {path}, parts: [tq]}}")


def test_a_saved_discriminator_starts_another_run(tiny_start, tmp_path) -> None:
    path, overrides = tiny_start(1, "model.discriminator.norm=none")
    folder = train(load(path, overrides, TrainConfig))
    saved = folder / "models/net_d_latest.pth"
    start = [*overrides, f"pretrained.discriminator={saved}"]
    run = build_run(load(path, start, TrainConfig))
    weights = weight_files.load(saved)["params"]
    assert run.recipe.discriminator is not None
    assert all(torch.equal(v, weights[k]) for k, v in run.recipe.discriminator.state_dict().items())
    with pytest.raises(UserError, match=r"pretrained\.discriminator: .* weights of another network than PatchGAN"):
        build_run(load(path, [*start, "model.discriminator.norm=instance"], TrainConfig))


def test_a_flow_estimator_on_the_cpu_is_named_with_its_seconds_in_a_run_on_a_gpu(caplog) -> None:
    recipe = nn.ModuleDict({"flow": DIS("ultrafast")})
    recipe["flow"](torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    with caplog.at_level("WARNING", "keep"):
        warn_of_cpu_flow(recipe, torch.device("cpu"))
        assert not caplog.text
        warn_of_cpu_flow(recipe, torch.device("cuda"))
    assert "the flow estimator runs on the CPU and took 0." in caplog.text
