"""Every option, typed.

Options of registered classes (archs, models, losses, …) are the parameters of their ``__init__``; see
:mod:`keep.config.registry`.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from keep.config.registry import BASELINES, DATASETS, METRICS, MODELS, OPTIMIZERS, SCHEDULES, TRACKERS, Options, mistake
from keep.utils.ranges import Batch, Count, CountOrNone, Crf, Decay, Factor, Processes, Seed, Weight

Dataset = Annotated[Any, DATASETS]
Metric = Annotated[Any, METRICS]


class TrainOptions(Options):
    iters: Count
    """Number of optimizer steps."""
    optim: Annotated[Any, OPTIMIZERS] = "Adam"
    """Optimizer of the network; Adam if no type is given."""
    optim_d: Annotated[Any, OPTIMIZERS] = "Adam"
    """Optimizer of the discriminator, if the model has one; Adam if no type is given."""
    lr_scale: dict[str, Weight] = {}
    """Part of the network (e.g. kalman_filter) → factor of its learning rate; default 1."""
    schedule: Annotated[Any, SCHEDULES]
    """Change of the learning rates over the run."""
    warmup: CountOrNone = 0
    """The learning rates rise linearly to their full value over this many steps."""
    ema: Decay = 0.999
    """Decay of the moving average of the weights, lower in the first updates: see keep/training/ema.py; 0: off."""
    grad_clip: Factor | None = None
    """Largest norm of the gradient; null: no clipping."""
    accumulate: Batch | None = None
    """Deprecated: batches whose gradients are averaged for one step. Use data.clips_per_step and data.clips_at_once."""
    amp: Literal["bf16", "fp16"] | None = None
    """Compute in bfloat16, or in float16 with scaled losses, where that is safe; null: float32. Weights, their average
    and validation stay in float32."""
    tf32: bool = False
    """On CUDA, compute float32 matrix products and convolutions with 10 bits of mantissa: about as precise as bf16."""
    channels_last: bool = False
    """Keep images as (N, H, W, C) in memory: faster convolutions on GPUs in half precision, and on CPUs."""
    fused_norms: bool = True
    """On CUDA, compute GroupNorm and the SiLU behind it in one kernel, in the layout and precision of the convolutions
    around it; statistics are float32. false: PyTorch's kernels, under amp in float32."""
    compile: tuple[str, ...] = ()
    """Networks of the model to compile with torch.compile, e.g. [net.generator, net.hq_encoder, discriminator]. The
    first steps then take minutes."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """When a loss or a gradient is NaN or infinite: stop and name it, or skip the step and count it. stop is checked
    while the next step runs. skip is checked before the weights change, so that every step waits for the GPU."""
    max_skipped: Count = 10
    """With on_nonfinite: skip, the number of steps in a row that may be skipped before the run stops."""


class TrainData(Options):
    train: Dataset
    """Training clips."""
    val: Dataset | None = None
    """Validation clips; null: no validation."""
    clips_per_step: Batch | None = None
    """Clips of one step of the whole run, shared equally by its processes; null: 1."""
    clips_at_once: Batch | None = None
    """The most clips that one process computes at once; it adds up the gradients of several equal batches where its
    share is larger. null: the share."""
    source_clips: Annotated[int, Field(ge=1, le=10**12)] | None = None
    """Clips that the run described by the source of these options sees, for the line at the start of a run."""
    batch_size: Batch | None = None
    """Deprecated: clips of one batch of one process; a step has batch_size × train.accumulate × processes clips. Use
    clips_per_step."""
    workers: Processes = 2
    """Data loader processes; 0 loads in the training process. The samples are the same for any number."""
    prefetch: bool = True
    """On CUDA, copy the next batches to the GPU in a separate stream while a step computes."""


class ValOptions(Options):
    interval: Count = 5000
    """Steps between validations; there is one more at the end."""
    metrics: tuple[Metric, ...] = ()
    """Metrics to measure."""


class ProfileOptions(Options):
    start: CountOrNone = 10
    """Steps of the process before the first measured one."""
    steps: Count = 10
    """Steps to time."""
    trace_steps: CountOrNone = 3
    """Steps after those to record in the trace; 0: no trace."""


class LogOptions(Options):
    interval: Count = 100
    """Steps between lines in the log."""
    image_interval: Count = 5000
    """Steps between training clips in the trackers."""
    save_interval: Count = 5000
    """Steps between checkpoints; there is one more at the end."""
    keep_last: Count = 3
    """Number of newest checkpoints to keep on disk."""
    keep_best: CountOrNone = 1
    """Number of further weights to keep: those with the best validation score."""
    best_metric: str | None = None
    """Name of the metric that ranks the weights, e.g. LPIPS-vgg; null: the first of val.metrics."""
    safetensors: bool = True
    """Also write the weights for inference (the average, if there is one) as .safetensors beside each .pth."""
    trackers: tuple[Annotated[Any, TRACKERS], ...] = ("TensorBoard",)
    """Where the records go besides train.log and log.jsonl: TensorBoard, WandB, MLflow; several at once, or none."""
    profile: ProfileOptions | None = None
    """Time the parts of some steps and write a trace, under profile/."""


class RunOptions(Options):
    name: Annotated[str, Field(pattern=r"^\w[\w.+-]*$", max_length=200)]
    """Name of the run and of its folder: letters, digits, and . _ + - after the first."""
    plugins: tuple[Path, ...] = ()
    """Python files that register your own archs, losses, …. Paths are relative to the YAML file; the files add to those
    of its ``_base_``."""
    seed: Seed = 0
    """Seed of everything random: weights, data order, degradations."""
    device: str = "auto"
    """auto (CUDA if available, otherwise CPU), cpu, cuda or cuda:N."""
    threads: Processes = 0
    """CPU threads of torch; 0: torch's default."""


class PretrainedOptions(Options):
    path: Path
    """Checkpoint file, or hf://ORG/NAME[/FILE][@REVISION] on the Hugging Face hub."""
    allow: tuple[str, ...] = ()
    """Options of the network that may differ from those that the file was trained with, e.g. [temporal]."""
    parts: tuple[str, ...] = ()
    """Parts of the network to fill, e.g. [lq_encoder]; empty: all that the file is for."""


class TrainConfig(RunOptions):
    root: Path = Path("experiments")
    """Folder of the runs."""
    model: Annotated[Any, MODELS]
    """The training recipe of a stage, with its networks and losses."""
    pretrained: dict[str, Path | PretrainedOptions] = {}
    """Initial weights: name of the part (see the model) → checkpoint file, or hf://ORG/NAME[/FILE][@REVISION]."""
    data: TrainData
    """Training and validation clips."""
    train: TrainOptions
    """Optimization."""
    val: ValOptions = ValOptions()
    """Validation."""
    log: LogOptions = Field(default_factory=LogOptions)
    """Logs and checkpoints."""

    @model_validator(mode="after")
    def _rates_fall(self) -> "TrainConfig":
        last = self.train.schedule.options.get("eta_min")
        used = ("optim", "optim_d") if self.model.options.get("discriminator") is not None else ("optim",)
        for name in used:
            first = getattr(self.train, name).options.get("lr")
            if isinstance(first, float) and isinstance(last, float) and last > first:
                message = f"the rate would rise: train.{name}.lr is {first:g}"
                raise mistake(message, ("train", "schedule", "eta_min"), last)
        return self

    @model_validator(mode="after")
    def _one_form_of_the_batch(self) -> "TrainConfig":
        new = [k for k in ("clips_per_step", "clips_at_once") if getattr(self.data, k) is not None]
        for part, name in (("data", "batch_size"), ("train", "accumulate")):
            value = getattr(getattr(self, part), name)
            if new and value is not None:
                raise mistake(
                    f"deprecated, and not to be given with data.{new[0]}: remove it; data.clips_per_step counts the "
                    "clips of all processes",
                    (part, name),
                    value,
                )
        return self


class SaveOptions(Options):
    clips: CountOrNone = 3
    """Number of clips, the first of each split, that get videos, x–t slices and gain maps."""
    crf: Crf = 16
    """H.264 quality of the videos; lower is better."""
    frames: Literal["png"] | None = None
    """png: also keep every frame of these clips, of each restorer, the input and the truth, as a lossless PNG; null:
    videos alone."""
    worst: CountOrNone = 4
    """Number of worst frames of each restorer and split that the page shows; 0: none are kept."""


class TestConfig(RunOptions):
    __test__: ClassVar[bool] = False  # for pytest: not a test class
    root: Path = Path("results")
    """Folder of the results."""
    data: Annotated[dict[str, Dataset], Field(min_length=1)]
    """Split → its clips to restore and score."""
    restorers: Annotated[dict[str, Annotated[Any, BASELINES]], Field(min_length=1)]
    """Row name → restorer. All restore the same clips."""
    metrics: tuple[Metric, ...]
    """Metrics to measure."""
    trained: dict[str, str] = {}
    """Row name → what its network was trained on and for how long, in words, for the report. Rows whose weight file
    was written by keep.train have it from there."""
    by_content: bool = False
    """Scores of an earlier run are reused for clips whose files have not changed. true: compare the contents of the
    files, which reads all of them; false: their sizes and times of change."""
    paper: dict[str, Literal["mild", "medium", "heavy"]] = {}
    """Split → part of the paper's table A2 to show beside it; splits named mild, medium or heavy have theirs anyway."""
    save: SaveOptions = SaveOptions()
    """Videos, pictures and frames to keep for viewing."""
