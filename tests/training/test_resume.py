"""A run stopped at any step and resumed ends like the uninterrupted run; a checkpoint is complete or does not exist."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import ROOT, options_and_start, same

from keep import train as keep_train
from keep.config.reading import load
from keep.config.registry import dump
from keep.config.schema import TrainConfig
from keep.data.video_io import VIDEO_SUFFIXES
from keep.training import checkpoint, trainer, validation
from keep.training.distributed import Ranks
from keep.training.folder import best_steps, find_state, list_states, list_weights, state_damage
from keep.utils import weight_files
from keep.utils.errors import UserError

# State that a resume could lose: the start of a phase, revived codes, two batches a step, a rate that follows the step.
MORE = {
    1: ["model.revive=2", "data.clips_per_step=2", "data.clips_at_once=1", "model.discriminator.norm=batch"],
    2: ["train.warmup=2", "model.filter_start=2", "train.lr_scale={kalman_filter: 0.5}"],
    3: ["model.gan_start=2", "train.optim_d.type=AdamW"],
}


def config(stage: int, clips: Path, root: Path, *more: str) -> TrainConfig:
    path, overrides = options_and_start(stage, clips, root, "device=cpu", "log.image_interval=100", *more)
    return load(path, overrides, TrainConfig)


def command(stage: int, clips: Path, root: Path, *more: str) -> list[str]:
    path, overrides = options_and_start(stage, clips, root, "device=cpu", *more)
    return ["-opt", str(path), *(word for o in overrides for word in ("--set", o))]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_resumed_at_any_step_with_any_workers_the_end_is_the_same_bit_for_bit(stage, clips, tmp_path) -> None:
    lower = ", degradation: [{type: Downsample}]" if stage > 1 else ""
    val = f"data.val={{type: VideoClips, root: {clips}, size: 32, max_frames: 1{lower}}}"
    more = [
        *MORE[stage], val, "val.metrics=[PSNR]", "val.interval=2", "log.save_interval=1", "log.keep_last=9",
        "log.safetensors=false",
    ]  # fmt: skip
    folder = trainer.train(config(stage, clips, tmp_path, *more))
    uninterrupted = weight_files.load(folder / "training_states/4.state")
    for step, workers in ((3, 0), (1, 2), (2, 1)):
        again = config(stage, clips, tmp_path, *more, f"data.workers={workers}")
        trainer.train(again, str(folder / f"training_states/{step}.state"))
        state = weight_files.load(folder / "training_states/4.state")
        for key in uninterrupted.keys() - {"options"}:
            assert same(uninterrupted[key], state[key]), (key, step, workers)
    assert uninterrupted["position"] == 4 * (2 if stage == 1 else 1)


def test_the_newest_intact_checkpoint_is_found_and_a_damaged_one_is_reported(clips, tmp_path, caplog) -> None:
    folder = trainer.train(config(1, clips, tmp_path, "log.save_interval=1"))
    cut, flipped = folder / "training_states/4.state", folder / "training_states/3.state"
    cut.write_bytes(cut.read_bytes()[:-2000])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    (folder / "training_states/.5.state.abc").write_bytes(b"half")  # of a process killed during a write
    (folder / "models/net_5.pth").write_bytes(b"weights without a state")
    again = config(1, clips, tmp_path)
    assert find_state(again, "auto", Ranks()) == folder / "training_states/2.state"
    assert caplog.text.count("skipped the damaged checkpoint") == 2
    trainer.train(again, "auto")
    assert {p.name for p in (folder / "training_states").iterdir()} == {"2.state", "4.state"}
    assert not (folder / "models/net_5.pth").exists()
    (aside,) = folder.glob("left_*")
    assert {"3.state", "4.state"} <= {p.name for p in aside.iterdir()}


def test_auto_resume_starts_a_new_run_and_does_not_change_a_finished_one(clips, tmp_path, capsys) -> None:
    arguments = [*command(1, clips, tmp_path, "train.iters=2"), "--auto-resume"]
    assert keep_train.main(arguments) == 0
    folder = tmp_path / "stage1"
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.state")}
    assert keep_train.main(arguments) == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.state")} == before
    assert "finished already" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["stage1"]


def test_changed_options_that_shape_the_result_are_refused_by_name(clips, tmp_path) -> None:
    folder = trainer.train(config(1, clips, tmp_path, "train.iters=2"))
    state = folder / "training_states/2.state"

    def resume(*more: str, allow: bool = False) -> trainer.Run:
        run = trainer.build_run(config(1, clips, tmp_path, *more), start=False)
        checkpoint.resume(run, state, allow)
        return run

    with pytest.raises(UserError) as refused:
        resume("train.optim.lr=1e-3", "model.perceptual={type: L1}", "seed=3", "model.pixel.weight=2", "log.interval=7")
    for change in ("seed: 0 → 3", "train.optim.lr: 0.002 → 0.001", "model.perceptual: null → L1", "model.pixel.weight"):
        assert change in str(refused.value)
    assert "log.interval" not in str(refused.value)
    assert resume("train.optim.lr=1e-3", allow=True).spec_of("net").options["lr"] == 1e-3
    free = ["train.iters=9", "train.schedule={type: Constant}", "log.save_interval=1", "val.interval=1", "name=other"]
    assert resume(*free, "data.workers=3", "threads=2", "train.optim.fused=true").step == 2
    # The clips of a step may be split in another way, but must be the same.
    assert trainer.train(config(1, clips, tmp_path, "train.iters=2", "data.clips_per_step=2"), None) == folder
    assert resume("data.clips_per_step=2", "data.clips_at_once=1").position == 4
    with pytest.raises(UserError, match=r"clips a step, over all processes: 2 → 1"):
        resume()


def test_states_from_before_an_option_keep_their_meaning() -> None:
    """VFHQ aligned before the degradation until ``align`` came; a state of that time does not resume as another run."""
    now = dump(load(ROOT / "options/train/stage2_kalman.yml", [], TrainConfig))
    old = {**now, "data": {**now["data"], "train": {k: v for k, v in now["data"]["train"].items() if k != "align"}}}
    changed = list(checkpoint.differences(checkpoint.with_current_defaults(old), now))
    assert changed == ["data.train.align: before → after"]
    assert list(checkpoint.differences(checkpoint.with_current_defaults(now), now)) == []


def test_the_root_of_one_of_several_datasets_may_change_and_its_other_options_not() -> None:
    assert checkpoint.may_change("data.train.datasets.11.root")
    assert not checkpoint.may_change("data.train.datasets.11.flip")
    assert not checkpoint.may_change("data.train.weights")


class Disk:
    """A disk that counts its writes and fails at the n-th."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails_at, self.writes = 0, 0
        disk = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                disk.writes += 1
                if disk.writes == disk.fails_at:
                    raise OSError(28, "No space left on device")
                return super().write(data)

        def opened(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
            return File(path, mode) if "x" in mode else path_open(path, mode, *rest, **options)

        path_open = Path.open
        monkeypatch.setattr(Path, "open", opened)

    def fail_at(self, count: int) -> None:
        self.fails_at, self.writes = count, 0


def test_a_write_that_fails_at_any_call_leaves_the_older_file(tmp_path, monkeypatch) -> None:
    disk, path = Disk(monkeypatch), tmp_path / "1.state"
    weight_files.save(path, {"step": 1, "weight": torch.zeros(3)})
    calls = disk.writes
    assert calls > 5
    for n in range(1, calls + 1):
        disk.fail_at(n)
        with pytest.raises((OSError, RuntimeError)):  # torch reports a failed write as the latter
            weight_files.save(path, {"step": 2, "weight": torch.ones(3)})
        assert weight_files.find_damage(path) == ""
        assert weight_files.load(path)["step"] == 1
        assert [p.name for p in tmp_path.iterdir()] == ["1.state"]


def test_a_checkpoint_that_fails_at_any_of_its_files_leaves_the_run_resumable(clips, tmp_path, monkeypatch) -> None:
    options = config(1, clips, tmp_path, "train.iters=2", "log.keep_last=1")
    folder = trainer.train(options)
    run = trainer.build_run(options, start=False)
    checkpoint.resume(run, folder / "training_states/2.state")
    run.step = 3
    disk = Disk(monkeypatch)
    disk.fail_at(0)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "prune", lambda *_: None)
        checkpoint.save(run)
    calls = disk.writes
    (folder / "training_states/3.state").unlink()
    before = (folder / "training_states/2.state").read_bytes()
    for n in [1, 2, *range(calls // 8, calls, calls // 8), calls]:  # weights, their export, the state
        disk.fail_at(n)
        with pytest.raises(UserError, match="cannot write: No space left on device; the checkpoints before step 3"):
            checkpoint.save(run)
        assert find_state(options, "auto", Ranks()) == folder / "training_states/2.state"
        assert (folder / "training_states/2.state").read_bytes() == before
        assert not list(folder.rglob(".*.state"))
    disk.fail_at(0)
    checkpoint.save(run)
    assert find_state(options, "auto", Ranks()) == folder / "training_states/3.state"
    assert not (folder / "training_states/2.state").exists()  # keep_last=1, and only now


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_that_fails_after_its_writes_leaves_the_older_file(call, tmp_path, monkeypatch) -> None:
    weight_files.save(tmp_path / "1.state", {"a": 1})

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
        with pytest.raises(OSError, match="Input/output"):
            weight_files.save(tmp_path / "1.state", {"a": 2})
    assert weight_files.load(tmp_path / "1.state") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["1.state"]


def test_the_newest_and_the_best_weights_stay(clips, tmp_path, monkeypatch) -> None:
    scores = iter([{"PSNR": 20.0}, {"PSNR": 25.0}, {"PSNR": 22.0}, {"PSNR": 21.0}, {"PSNR": 10.0}])
    monkeypatch.setattr(validation, "validate", lambda *_: next(scores))
    val = f"data.val={{type: VideoClips, root: {clips}, size: 32}}"
    more = [val, "val.metrics=[PSNR]", "val.interval=1", "log.keep_last=1", "log.keep_best=2", "train.iters=5"]
    folder = trainer.train(config(1, clips, tmp_path, *more))
    assert set(list_weights(folder)) == {2, 3, 5}
    assert set(list_states(folder)) == {5}
    assert weight_files.load(folder / "models/net_best.pth")["step"] == 2
    assert weight_files.load(folder / "models/net_latest.safetensors")["step"] == "5"
    with pytest.raises(UserError, match=r"log.best_metric: 'LPIPS' is not among val.metrics: PSNR"):
        trainer.train(config(1, clips, tmp_path, *more, "log.best_metric=LPIPS"))
    assert best_steps({1: 3.0, 2: 1.0, 3: float("nan"), 4: 1.0}, False, 2) == [2, 4]


@pytest.mark.parametrize(("more", "warned"), [((), True), (("log.best_metric=PSNR",), False), (("gan",), False)])
def test_psnr_that_chooses_the_weights_of_a_gan_unasked_is_warned_of(more, warned, clips, tmp_path, caplog) -> None:
    more = ("model.discriminator=null", "model.gan=null") if more == ("gan",) else more
    options = config(1, clips, tmp_path, f"data.val={{type: VideoClips, root: {clips}}}", "val.metrics=[PSNR]", *more)
    validation.Validation.build(options, object())
    assert ("PSNR chooses the best weights of a run with a discriminator" in caplog.text) is warned


def test_weights_hold_their_origin(clips, tmp_path, caplog) -> None:
    with caplog.at_level("INFO", "keep"):
        folder = trainer.train(config(2, clips, tmp_path, "train.iters=1"))
    digest = weight_files.load(folder / "models/net_1.pth")["pretrained"]["vqgan"]
    assert f"sha256 {digest}" in caplog.text
    assert "tensors of net" in caplog.text
    assert "; not kalman_filter, code_transformer, cft, cfa" in caplog.text
    content = weight_files.load(folder / "models/net_1.pth")
    assert content["options"]["train"]["iters"] == 1
    exported = weight_files.load(folder / "models/net_1.safetensors")
    assert exported["weights"] == "params_ema"
    assert same(dict(content["params_ema"]), exported["params"])


def test_layout_may_change_at_a_resume_with_fused_optimizers(clips, tmp_path) -> None:
    more = ["train.optim.fused=true", "train.optim_d.fused=true", "log.safetensors=false", "log.save_interval=2"]
    folder = trainer.train(config(1, clips, tmp_path, *more))
    plain = weight_files.load(folder / "models/net_4.pth")["params"]
    again = config(1, clips, tmp_path, *more, "train.channels_last=true")
    trainer.train(again, str(folder / "training_states/2.state"))
    other = weight_files.load(folder / "models/net_4.pth")["params"]
    assert (
        max((plain[k] - other[k]).abs().max().item() for k in plain) < 2e-4
    )  # rounding; moments in another order: 1e-3


def test_weights_without_their_states_are_never_deleted(clips, tmp_path) -> None:
    folder = trainer.train(config(1, clips, tmp_path, "log.save_interval=1"))
    elsewhere = tmp_path / "elsewhere"
    (folder / "training_states").rename(elsewhere)
    trainer.train(config(1, clips, tmp_path, "train.iters=5"), str(elsewhere / "3.state"))
    (aside,) = folder.glob("left_*")
    assert (aside / "net_4.pth").exists()
    assert set(list_weights(folder)) == {3, 4, 5}


def test_any_damage_of_a_state_is_detected_without_a_crash(tmp_path) -> None:
    path = tmp_path / "1.state"
    weight_files.save(path, {"a": torch.arange(3)})
    intact = path.read_bytes()
    for i in range(0, len(intact), 7):
        content = bytearray(intact)
        content[i] ^= 0xFF
        path.write_bytes(content)
        if not state_damage(path):  # a byte outside the content, e.g. of a time
            weight_files.load(path)


def test_scores_of_another_metric_or_of_deleted_weights_choose_nothing(clips, tmp_path, monkeypatch) -> None:
    val = f"data.val={{type: VideoClips, root: {clips}, size: 32}}"
    more = [val, "val.metrics=[PSNR, SSIM]", "val.interval=1", "log.save_interval=1", "log.safetensors=false"]
    values = {"PSNR": iter([30.0, 20.0, 25.0, 21.0, 21.0, 22.0]), "SSIM": iter([0.9, 0.1, 0.2, 0.3, 0.3, 0.4])}
    monkeypatch.setattr(validation, "validate", lambda *_: {k: next(v) for k, v in values.items()})
    folder = trainer.train(config(1, clips, tmp_path, *more, "log.best_metric=PSNR"))
    assert weight_files.load(folder / "models/net_best.pth")["step"] == 1
    again = config(1, clips, tmp_path, *more, "log.best_metric=SSIM", "train.iters=5")
    trainer.train(again, "auto")
    assert weight_files.load(folder / "training_states/5.state")["scores"] == {
        4: 0.3,
        5: 0.4,
    }  # step 4: scored again
    assert weight_files.load(folder / "models/net_best.pth")["step"] == 5


def test_other_parts_in_lr_scale_are_refused(clips, tmp_path) -> None:
    folder = trainer.train(config(2, clips, tmp_path, "train.iters=1"))
    again = config(2, clips, tmp_path, "train.iters=2", "train.lr_scale={lq_encoder: 0.5, kalman_filter: 0.1}")
    with pytest.raises(UserError, match=r"train.lr_scale must name the same parts"):
        trainer.train(again, str(folder / "training_states/1.state"), allow_changed=True)


def test_the_use_of_codes_is_counted_on_from_where_the_run_stopped(clips, tmp_path) -> None:
    options = ["log.interval=4", "train.iters=4"]
    path, overrides = options_and_start(1, clips, tmp_path, *options)
    folder = trainer.train(load(path, overrides, TrainConfig))

    def last_record() -> dict[str, float]:
        return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])

    whole = last_record()
    trainer.train(load(path, overrides, TrainConfig), str(folder / "training_states/2.state"))
    for key in ("codebook/used", "codebook/perplexity"):
        assert last_record()[key] == whole[key]


def test_other_training_clips_are_refused_at_a_resume_and_a_copy_of_them_is_not(clips, tmp_path) -> None:
    path, overrides = options_and_start(1, clips, tmp_path)
    state = trainer.train(load(path, overrides, TrainConfig)) / "training_states/2.state"
    copy = tmp_path / "copy"
    shutil.copytree(clips, copy)  # new times of change
    elsewhere = load(path, [*overrides, f"data.train.root={copy}"], TrainConfig)
    trainer.train(elsewhere, str(state))
    one = next(p for p in copy.iterdir() if p.suffix in VIDEO_SUFFIXES)
    shutil.copy(one, one.with_name(f"more{one.suffix}"))
    with pytest.raises(
        UserError, match=r"differ from those in .*2\.state: the training clips \(their names or lengths\)"
    ):
        trainer.train(elsewhere, str(state))
    trainer.train(elsewhere, str(state), allow_changed=True)
