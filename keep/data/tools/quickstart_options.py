"""The options files of ``keep-data quickstart``: the three stages and the test, on top of shipped recipes."""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from keep.data.tools.splits import from_here
from keep.utils.dtypes import has_bfloat16
from keep.utils.io import write_file


@dataclass(frozen=True)
class Recipe:
    """What a size builds on.

    Attributes:
        base: folder of the shipped options.
        steps: of the three stages.
        seconds: of a step of each stage: two cores with AMX for nano, one core with AVX512-BF16 for lite.
        gan: whether stage I of the base has an adversarial term.
        net: options of stage I's network that differ from the base's, as YAML.
        net_keep: the same, of the network of stages II and III.
    """

    base: str
    steps: tuple[int, int, int]
    seconds: tuple[float, float, float]
    gan: bool
    net: str = ""
    net_keep: str = ""


NET_96 = "image_size: 96, attn_resolutions: [12]"
RECIPES = {
    96: Recipe(
        "nano", (4000, 3000, 1000), (0.3, 0.4, 0.9), True, NET_96,
        f"{NET_96}, cft_scales: [12, 24, 48], cfa_scales: [12, 24]",
    ),
    128: Recipe("nano", (4000, 3000, 1000), (0.5, 0.7, 1.5), True),
    256: Recipe("lite", (4500, 3000, 1500), (1.5, 1.3, 1.6), False),
}  # fmt: skip
"""Size of the faces → its recipe. The seconds of 128 and 256 follow from docs/small_models.md and docs/lite.md, those
of 96 from the number of its pixels."""
SLOWER = 4.5
"""How many times longer a step takes on a processor without bfloat16 instructions (measured for nano)."""


def write_options(args: argparse.Namespace) -> None:
    """Write OUT/stage1.yml, stage2.yml and stage3.yml, and OUT/test.yml last: with it the folder is finished."""
    recipe = RECIPES[args.size]
    for name, make in (("stage1", stage1), ("stage2", stage2), ("stage3", stage3), ("test", test)):
        write_file(args.out / f"{name}.yml", make(args, recipe))


def duration(args: argparse.Namespace) -> str:
    """How long the three stages take on a CPU, roughly, as text: from seconds a step of nano and lite (docs)."""
    seconds = sum(n * s for n, s in zip(args.steps, RECIPES[args.size].seconds, strict=True))
    seconds *= 1 if fast_bfloat16() else SLOWER
    return f"{seconds / 3600:.0f} hours" if seconds > 2 * 3600 else f"{max(2, seconds / 60):.0f} minutes"


def fast_bfloat16() -> bool:
    return torch.cuda.is_available() or has_bfloat16(torch.device("cpu"))


def stage1(args: argparse.Namespace, recipe: Recipe) -> str:
    regions = " --set model.regions.perceptual=null" if recipe.base == "lite" else ""
    model = [f"net: {{{recipe.net}}}"] * bool(recipe.net) + [f"gan_start: {args.steps[0] // 2}"] * recipe.gan
    block = "".join(["model:\n", *(f"  {line}\n" for line in model)]) if model else ""
    return f"""\
# Stage I: codebook and autoencoder, on single frames of {args.size}×{args.size}. The perceptual loss, of stage III too,
# downloads its network once (5 MB). Without a connection: --set model.perceptual.weights=FILE if you have torchvision's
# squeezenet1_1, else --set model.perceptual=null{regions}
#   keep-train -opt {yaml_text(args.out / "stage1.yml")}
_base_: {recipe.base}/stage1.yml    # part of the package; --explain lists every option with its value
name: stage1
root: {yaml_text(args.out / "experiments")}
threads: 0                 # all cores
{block}data:
  train: {{root: {yaml_text(args.out / "train.zip")}, size: {args.size}}}
  val: {{type: PackedClips, root: {yaml_text(args.out / "val.zip")}, size: {args.size}, max_frames: 16}}
{validation_and_steps(args.steps[0])}"""


def stage2(args: argparse.Namespace, recipe: Recipe) -> str:
    return f"""\
# Stage II: LQ encoder, code transformer and Kalman filter, on degraded clips. Until filter_start every frame stands
# alone; then the filter trains slowly (lr_scale). Trained earlier or faster, it ignores the prediction (gain 1), which
# is still useless.
#   keep-train -opt {yaml_text(args.out / "stage2.yml")}
_base_: {recipe.base}/_stage2.yml
name: stage2
root: {yaml_text(args.out / "experiments")}
threads: 0
model:
  scale: 4
  filter_start: {args.steps[1] * 3 // 4}
{keep_net(recipe)}pretrained:
  vqgan: {yaml_text(args.out / "experiments/stage1/models/net_latest.pth")}
{degraded_data(args)}
{validation_and_steps(args.steps[1])}  lr_scale: {{kalman_filter: 0.05}}
"""


def stage3(args: argparse.Namespace, recipe: Recipe) -> str:
    return f"""\
# Stage III: features of the input (CFT) and attention to the frame before (CFA), with losses on pixels.
#   keep-train -opt {yaml_text(args.out / "stage3.yml")}
_base_: {recipe.base}/stage3.yml
name: stage3
root: {yaml_text(args.out / "experiments")}
threads: 0
model:
  scale: 4
  pixel: {{weight: 8.0}}
  temporal: {{weight: 4.0}}
  gan: {{weight: 0.01}}
  gan_start: {args.steps[2] // 4}
{keep_net(recipe)}pretrained:
  keep: {yaml_text(args.out / "experiments/stage2/models/net_latest.pth")}
{degraded_data(args)}
{validation_and_steps(args.steps[2])}"""


def keep_net(recipe: Recipe) -> str:
    """A line of ``model`` in stages II and III."""
    return f"  net: {{{recipe.net_keep}}}\n" if recipe.net_keep else ""


def degraded_data(args: argparse.Namespace) -> str:
    """``data`` of stages II and III. The shipped degradations are for 512×512 and scale to ``size``."""
    return f"""\
data:
  train:
    _base_: degradation/paper.yml#data.train      # eq. (9); for 512×512, scaled to size
    type: PackedClips
    root: {yaml_text(args.out / "train.zip")}
    size: {args.size}
    interval: [1, 2, 3]
    reverse: true
    flip: true
  val:
    _base_: degradation/medium.yml#data.test
    type: PackedClips
    root: {yaml_text(args.out / "val.zip")}
    size: {args.size}
    max_frames: 16"""


def validation_and_steps(steps: int) -> str:
    """``val`` and ``train`` of a stage of so many steps."""
    amp = (
        "" if fast_bfloat16() else "  amp: null                # this processor has no bfloat16; bf16 where there is\n"
    )
    return f"""\
val: {{interval: {max(100, steps // 4)}, metrics: [PSNR, SSIM]}}
log: {{keep_best: 0}}        # the next stage and the test use the last weights
train:
  iters: {steps}
{amp}"""


def test(args: argparse.Namespace, _: Recipe) -> str:
    clips = f"{{type: PackedClips, root: {yaml_text(args.out / 'test.zip')}, size: {args.size}}}"
    return f"""\
# The table: bicubic and KEEP on people that are in no training clip, degraded mildly, medium and heavily.
#   keep-test -opt {yaml_text(args.out / "test.yml")}
name: test
root: {yaml_text(args.out / "results")}
data:
  mild: {{_base_: degradation/mild.yml#data.test, <<: &clips {clips}}}
  medium: {{_base_: degradation/medium.yml#data.test, <<: *clips}}
  heavy: {{_base_: degradation/heavy.yml#data.test, <<: *clips}}
restorers:
  bicubic: Bicubic
  KEEP: {{type: KEEP, weights: {yaml_text(args.out / "experiments/stage3/models/net_latest.pth")}}}
metrics: [PSNR, SSIM]             # more: docs/benchmark.md
"""


def yaml_text(path: Path) -> str:
    """A path as options files name it, relative to the present folder, in quotes where YAML needs them."""
    text = from_here(path)
    return text if re.fullmatch(r"[A-Za-z_/][\w./-]*", text, re.ASCII) else json.dumps(text, ensure_ascii=False)
