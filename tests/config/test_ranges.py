"""Every option that is a number has a lowest and a highest value, and values that make no sense are refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import PositiveInt
from pydantic.fields import FieldInfo

from keep.config.plugins import import_registered
from keep.config.reading import load
from keep.config.registry import REGISTRIES, Options, schema
from keep.config.schema import TestConfig, TrainConfig
from keep.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def unbounded(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[Any]:
    """The numbers in a type that lack an end."""
    origin, args = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, FieldInfo):
        yield from unbounded(annotation.annotation, tuple(annotation.metadata))
    elif origin is Annotated:
        inner = [m for a in args[1:] for m in (a.metadata if isinstance(a, FieldInfo) else [a])]
        yield from unbounded(args[0], (*metadata, *inner))
    elif annotation in (int, float):
        names = {name for m in metadata for name in ("ge", "gt", "le", "lt") if getattr(m, name, None) is not None}
        if not (names & {"ge", "gt"} and names & {"le", "lt"}):
            yield annotation
    elif origin is not Literal:
        for arg in args:
            yield from unbounded(arg)


def fields(cls: type[Options], path: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in cls.model_fields.items():
        yield f"{path}.{name}", field
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Options):
                yield from fields(inner, f"{path}.{name}")


def test_the_walk_finds_a_number_without_an_end() -> None:
    class Open(Options):
        a: PositiveInt = 1
        """."""
        b: tuple[Annotated[float, "x"], ...] | None = None
        """."""

    assert [name for name, f in fields(Open, "") if [*unbounded(f)]] == [".a", ".b"]


def test_every_number_has_both_ends() -> None:
    import_registered()
    found = [*fields(TrainConfig, "train"), *fields(TestConfig, "test")]
    for registry in REGISTRIES:
        for name in registry.names():
            if registry[name].__module__.startswith("keep."):  # other tests register classes of their own
                found += fields(schema(registry[name]), f"{registry.kind} {name}")
    assert len(found) > 250
    assert [name for name, field in found if [*unbounded(field)]] == []


STAGE1, STAGE3 = ROOT / "options/tiny/stage1.yml", ROOT / "options/tiny/stage3.yml"


@pytest.mark.parametrize("value", ["2147483648", "-1", "0", "1e12", "true", "many"])
@pytest.mark.parametrize(
    "option",
    [
        "model.net.image_size", "model.net.channels", "model.net.latent_dim", "model.net.codebook_size",
        "model.net.res_blocks", "model.net.patch", "model.net.ch_mult.0", "model.net.transformer_layers", "model.scale",
        "data.train.size", "data.train.clip_length", "data.train.interval", "data.train.degradation.1.scale",
        "data.clips_per_step", "data.clips_at_once", "train.iters", "train.optim.lr", "log.interval",
        "log.save_interval", "val.interval", "train.max_skipped",
    ],
)  # fmt: skip
def test_sizes_rates_and_counts_are_above_zero_and_of_this_world(option: str, value: str) -> None:
    value = f"[{value}]" if option.endswith("interval") and option.startswith("data") else value
    with pytest.raises(UserError, match=f"--set {option}"):
        load(STAGE3, [f"{option}={value}"], TrainConfig)


@pytest.mark.parametrize(
    "override",
    [
        "seed=9223372036854775808", "seed=-1", "threads=-1", "threads=2147483648", "data.workers=-1",
        "data.workers=2147483648", "train.warmup=-1", "train.ema=1", "train.ema=-0.1", "train.grad_clip=0",
        "train.grad_clip=1e30", "train.optim.weight_decay=-1", "train.optim.betas=[0.9, 1]", "model.pixel.weight=-1",
        "model.pixel.weight=1e30", "model.pixel.weight=nan", "model.pixel.weight=.inf", "model.gan_start=-1",
        "train.lr_scale={net: -1}", "train.schedule.eta_min=-1", "train.schedule={type: MultiStep, milestones: [-1]}",
        "train.schedule={type: MultiStep, milestones: [5], gamma: 2}", "data.train.tone_jitter=[100, 0]",
        "data.train.degradation.0.sigma=[-1, 2]", "data.train.degradation.0.sigma=[1, 1e9]",
        "data.train.degradation.3.crf=[-1, 20]", "data.train.degradation.3.crf=[20, 52]",
        "data.train.degradation.3.fps=0", "data.train.degradation.3.fps=100000",
    ],
)  # fmt: skip
def test_other_values_that_make_no_sense_are_refused(override: str) -> None:
    with pytest.raises(UserError, match=f"--set {override.partition('=')[0]}"):
        load(STAGE3, [override], TrainConfig)


@pytest.mark.parametrize("override", ["save.crf=-1", "save.crf=52", "save.clips=-1", "save.worst=-1"])
def test_so_are_those_of_a_test(override: str) -> None:
    with pytest.raises(UserError, match=f"--set {override.partition('=')[0]}"):
        load(ROOT / "options/tiny/test.yml", [override], TestConfig)


def test_the_last_rate_is_at_most_the_first() -> None:
    def load_with(path: Path, lr: str, last: str, *more: str) -> TrainConfig:
        return load(
            path, [f"train.optim.lr={lr}", f"train.schedule={{type: Cosine, eta_min: {last}}}", *more], TrainConfig
        )

    assert load_with(STAGE1, "1e-3", "1e-3", "train.optim_d.lr=1e-3").train.schedule.options["eta_min"] == 1e-3
    with pytest.raises(UserError, match=r"train\.schedule\.eta_min: the rate would rise: train\.optim\.lr is 0\.001"):
        load_with(STAGE1, "1e-3", "2e-3", "train.optim_d.lr=1")
    with pytest.raises(UserError, match=r"train\.schedule\.eta_min: the rate would rise: train\.optim_d\.lr is 1e-05"):
        load_with(STAGE1, "1e-3", "1e-4", "train.optim_d.lr=1e-5")
    no_discriminator = ("model.discriminator=null", "model.gan=null", "train.optim_d.lr=1e-5")
    assert load_with(STAGE1, "1e-3", "1e-4", *no_discriminator)
