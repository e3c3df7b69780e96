"""The training loop: three stages in a row, phases, resume, EMA, and runs that must not start."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from keep import checkpoint, trainer
from keep.config import TrainConfig, load
from keep.ema import EMA
from keep.errors import UserError
from keep.schedules import Constant, Cosine, MultiStep


def run(tiny, stage: int, *more: str, resume: str | None = None) -> Path:
    path, overrides = tiny(stage, *more)
    return trainer.train(load(path, overrides, TrainConfig), resume)


@pytest.fixture
def stage1(tiny) -> Path:
    return run(tiny, 1)


@pytest.fixture
def stage2(tiny, stage1: Path) -> Path:
    return run(tiny, 2)


def test_three_stages_train_one_after_another_and_touch_only_their_parts(tiny, stage1: Path, stage2: Path) -> None:
    stage3 = run(tiny, 3)
    state = {
        n: checkpoint.load(folder / "models/net_latest.pth")["params"]
        for n, folder in ((1, stage1), (2, stage2), (3, stage3))
    }
    start = {
        n: checkpoint.load(folder / "models/net_latest.pth")["params_ema"] for n, folder in ((1, stage1), (2, stage2))
    }

    def changed(before: dict, after: dict) -> set[str]:
        return {k.split(".")[0] for k in after if k in before and not torch.equal(before[k], after[k])}

    vqgan = {k.replace("encoder.", "hq_encoder.", 1) if k.startswith("encoder.") else k: v for k, v in start[1].items()}
    assert changed(vqgan, state[2]) == set()  # E_H, codebook, generator stay stage I's
    assert changed({k.replace("hq_", "lq_", 1): v for k, v in vqgan.items()}, state[2]) == {"lq_encoder"}
    assert changed(start[2], state[3]) == {"cft", "cfa"}


def test_a_run_s_folder_holds_options_logs_and_checkpoints(stage1: Path) -> None:
    names = {p.relative_to(stage1).as_posix() for p in stage1.rglob("*") if p.is_file()}
    assert {"options.yml", "train.log", "log.jsonl", "models/net_latest.pth", "models/net_4.pth"} <= names
    assert {"training_states/2.state", "training_states/4.state"} <= names
    assert any(n.startswith("tb/events") for n in names)
    records = [json.loads(line) for line in (stage1 / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2, 3, 4]
    assert "loss/gan" not in records[1]
    assert {"loss/gan", "loss/d"} <= records[2].keys()  # gan_start=2: the third step is the first with it
    assert load(stage1 / "options.yml", [], TrainConfig).train.iters == 4


def test_a_resumed_run_ends_in_the_same_weights(tiny) -> None:
    stage1 = run(tiny, 1, "model.revive=1")
    whole = checkpoint.load(stage1 / "models/net_4.pth")
    assert run(tiny, 1, "model.revive=1", resume=str(stage1 / "training_states/2.state")) == stage1
    (aside,) = stage1.glob("left_*")  # the first way from step 2 on
    assert {p.name for p in aside.iterdir()} == {"4.state", "net_4.pth"}
    records = [json.loads(line)["step"] for line in (stage1 / "log.jsonl").read_text().splitlines()]
    assert records == [1, 2, 3, 4]
    again = checkpoint.load(stage1 / "models/net_4.pth")
    for key in ("params", "params_ema"):
        assert all(torch.equal(whole[key][k], again[key][k]) for k in whole[key])


def test_resume_of_a_finished_run_or_a_foreign_file_is_refused(tiny, stage1: Path) -> None:
    with pytest.raises(UserError, match=r"is at step 4, and train.iters is 4"):
        run(tiny, 1, resume="auto")
    with pytest.raises(UserError, match="not a training state"):
        run(tiny, 1, resume=str(stage1 / "models/net_4.pth"))
    with pytest.raises(UserError, match=r"another network than the options' VQGANModel: discriminator"):
        run(tiny, 1, "model.discriminator=null", "model.gan=null", resume=str(stage1 / "training_states/2.state"))


def test_pruning_keeps_the_newest_also_after_going_back(tiny) -> None:
    folder = run(tiny, 1, "log.save_interval=1", "log.keep_last=2")
    states = folder / "training_states"
    assert {p.name for p in states.iterdir()} == {"3.state", "4.state"}
    run(tiny, 1, "log.save_interval=1", "log.keep_last=1", "train.iters=5", resume=str(states / "3.state"))
    assert {p.name for p in states.iterdir()} == {"5.state"}


def test_an_average_switched_on_at_resume_starts_from_the_loaded_weights(tiny) -> None:
    folder = run(tiny, 1, "train.ema=0")
    path, overrides = tiny(1, "train.ema=0.9")
    started = trainer.build_run(load(path, overrides, TrainConfig), start=False)
    trainer.restore_state(started, folder / "training_states/2.state")
    assert started.ema is not None
    live = dict(started.recipe.net.named_parameters())
    assert all(torch.equal(v, live[k]) for k, v in started.ema.state_dict().items() if isinstance(v, torch.Tensor))


def test_an_older_run_of_the_same_name_is_moved_aside(tiny, stage1: Path) -> None:
    run(tiny, 1)
    aside = [p for p in stage1.parent.iterdir() if p.name.startswith("stage1_archived_")]
    assert len(aside) == 1
    assert (aside[0] / "models/net_4.pth").is_file()


def test_a_frozen_part_without_weights_stops_the_run_before_it_writes(tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs stage I's VQGAN, but there is no file .*set pretrained\.vqgan"):
        run(tiny, 2)
    path, overrides = tiny(3)
    config = load(path, overrides, TrainConfig).model_copy(update={"pretrained": {}})
    with pytest.raises(UserError, match=r"no file is named: set pretrained\.keep"):
        trainer.train(config)
    with pytest.raises(UserError, match="did you mean 'vqgan'"):
        run(tiny, 2, "pretrained.vqgen=x.pth")
    assert not (tmp_path / "experiments").exists()


def test_a_checkpoint_of_another_network_is_refused_with_names(tiny, stage1: Path) -> None:
    with pytest.raises(
        UserError, match=r"checkpoint of another network .*codebook\.embedding\.weight is 16×8, not 32×8"
    ):
        run(tiny, 2, "model.net.codebook_size=32")


def test_dry_run_runs_every_phase_and_writes_nothing(tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, overrides = tiny(1)
    with caplog.at_level("INFO", "keep"):
        trainer.dry_run(load(path, overrides, TrainConfig))
    text = caplog.text
    assert "start (step 0)" in text
    assert "adversarial (step 2)" in text
    assert not (tmp_path / "experiments").exists()


def test_dry_run_without_data_says_so_and_uses_made_up_clips(
    tiny, stage1: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, overrides = tiny(2, "data.train.root=nowhere", "data.train.clip_length=5")
    with caplog.at_level("INFO", "keep"):
        trainer.dry_run(load(path, overrides, TrainConfig))
    assert "data.train.root: there is no nowhere" in caplog.text
    assert "made-up clips" in caplog.text
    assert "one clip, of at most 2 frames" in caplog.text


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tiny) -> None:
    with pytest.raises(UserError, match=r"not finite; terms: pixel"):
        run(tiny, 1, "train.optim.lr=1e30", "train.warmup=0", "model.pixel.weight=1e38")


def test_validation_is_logged_with_the_weights_it_used(tiny, clips: Path) -> None:
    val = f"{{type: VideoClips, root: {clips}, size: 32, max_frames: 3}}"
    folder = run(tiny, 1, f"data.val={val}", "val.metrics=[PSNR, SSIM]", "val.interval=2")
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    scores = [r for r in records if "val/PSNR (ema)" in r]
    assert [r["step"] for r in scores] == [2, 4]
    assert 0 < scores[-1]["val/PSNR (ema)"] < 60


def test_revived_codes_stay_in_use(tiny) -> None:
    folder = run(tiny, 1, "model.revive=2")
    state = checkpoint.load(folder / "training_states/4.state")
    assert "chosen" in state["recipe"]


def test_ema_moves_towards_the_weights_and_swaps_in_and_out() -> None:
    net = torch.nn.Linear(2, 2)
    before = net.weight.detach().clone()
    ema = EMA(net, 0.9)
    with torch.no_grad():
        net.weight += 1
    ema.update()  # the first update's decay is 1/10
    with ema.applied():
        torch.testing.assert_close(net.weight, before + 0.9)
    torch.testing.assert_close(net.weight, before + 1)


def test_a_part_learns_at_its_own_rate_and_a_wrong_part_is_named(tiny, stage1: Path) -> None:
    path, overrides = tiny(2, "train.lr_scale={kalman_filter: 0, lq_encoder: 0.5}", "train.warmup=0")
    started = trainer.build_run(load(path, overrides, TrainConfig))
    before = {k: v.clone() for k, v in started.recipe.net.state_dict().items()}
    trainer.train_step(started, trainer.dry_batch(started.config, None, started.device))
    after = started.recipe.net.state_dict()
    changed = {k.split(".")[0] for k in after if not torch.equal(after[k], before[k])}
    assert changed == {"lq_encoder", "code_transformer"}
    rates = [g["lr"] for g in started.optimizers["net"].param_groups]
    assert rates == pytest.approx([3e-3, 0.0, 1.5e-3])
    with pytest.raises(UserError, match=r"train\.lr_scale\.kalman: no such part .* did you mean 'kalman_filter'"):
        run(tiny, 2, "train.lr_scale={kalman: 0.1}")


def test_schedules() -> None:
    assert Constant()(2.0, 7, 10) == 2.0
    step = MultiStep((3, 6), 0.5)
    assert [step(1.0, s, 9) for s in (0, 2, 3, 5, 6)] == [1, 1, 0.5, 0.5, 0.25]
    cosine = Cosine(0.1)
    assert cosine(1.0, 0, 11) == 1.0
    assert cosine(1.0, 5, 11) == pytest.approx(0.55)
    assert cosine(1.0, 10, 11) == pytest.approx(0.1)


def test_learning_rate_warms_up_and_follows_the_schedule(tiny) -> None:
    folder = run(tiny, 1, "train.warmup=1", "train.optim.lr=1e-3", "train.schedule={type: Constant}")
    rates = [json.loads(line)["lr"] for line in (folder / "log.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(rates, [0.5e-3, 1e-3, 1e-3, 1e-3])
