"""Every option, typed.

Options of registered classes (archs, models, losses, …) are the parameters of their ``__init__``; see
:mod:`keep.config.registry`.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from keep.config.registry import BASELINES, DATASETS, METRICS, MODELS, SCHEDULES, Options

Dataset = Annotated[Any, DATASETS]
Metric = Annotated[Any, METRICS]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class OptimOptions(Options):
    type: Literal["Adam", "AdamW"] = "Adam"
    """Optimizer."""
    lr: PositiveFloat = 2e-4
    """Learning rate before the schedule."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    """Adam's running-average coefficients."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty (Adam) or decoupled decay (AdamW)."""
    fused: bool = False
    """One kernel for all weights: less launching on a GPU. Results differ in rounding alone."""


class TrainOptions(Options):
    iters: PositiveInt
    """Number of optimizer steps."""
    optim: OptimOptions = OptimOptions()
    """Optimizer of the network."""
    optim_d: OptimOptions = OptimOptions()
    """Optimizer of the discriminator, where the model has one."""
    lr_scale: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Part of the network (e.g. kalman_filter) → factor of its learning rate; 1 where not named."""
    schedule: Annotated[Any, SCHEDULES]
    """How the learning rates change over the run."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rates rise linearly from zero."""
    ema: Fraction = 0.999
    """Decay of the exponential moving average of the weights; 0 switches it off."""
    grad_clip: PositiveFloat | None = None
    """Largest norm of the gradient; null: no clipping."""
    accumulate: PositiveInt = 1
    """Batches whose gradients add up to one step: a step sees batch_size × accumulate × processes clips."""
    amp: Literal["bf16", "fp16"] | None = None
    """Compute in bfloat16, or in float16 with scaled losses, where that is safe; null: float32. Weights, their average
    and validation stay float32."""
    tf32: bool = False
    """On CUDA, products of float32 matrices and convolutions with 10 bits of mantissa: about as precise as bf16."""
    channels_last: bool = False
    """Keep images as (N, H, W, C) in memory: faster convolutions on GPUs in half precision, and on CPUs."""
    compile: tuple[str, ...] = ()
    """Networks of the model that torch.compile translates, e.g. [net.generator, net.hq_encoder, discriminator]. The
    first steps take minutes."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """When a loss or a gradient is NaN or infinite: stop with its name, or leave that step out and count it."""
    max_skipped: PositiveInt = 10
    """With on_nonfinite: skip, how many steps in a row may be left out before the run stops after all."""


class TrainData(Options):
    train: Dataset
    """Training clips."""
    val: Dataset | None = None
    """Validation clips; null: no validation."""
    batch_size: PositiveInt = 1
    """Clips of one batch of one process."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Data loader processes; 0 loads in the training process. The drawn samples are the same for any number."""
    prefetch: bool = True
    """On CUDA, copy the next batches to the GPU on a stream of their own while a step computes."""


class ValOptions(Options):
    interval: PositiveInt = 5000
    """Steps between validations; one more is made at the end."""
    metrics: tuple[Metric, ...] = ()
    """What is measured."""


class WandbOptions(Options):
    project: str = "keep"
    """Project of Weights & Biases."""
    entity: str | None = None
    """Team or user; null: the account's own."""
    tags: tuple[str, ...] = ()
    """Tags of the run."""
    mode: Literal["online", "offline"] = "online"
    """online, or offline: written to the run's folder alone; ``wandb sync`` sends it later."""


class ProfileOptions(Options):
    start: Annotated[int, Field(ge=0)] = 10
    """Steps of the process before the first one that is measured."""
    steps: PositiveInt = 10
    """Steps whose parts are timed."""
    trace_steps: Annotated[int, Field(ge=0)] = 3
    """Steps after those that go into the trace; 0 writes none."""


class LogOptions(Options):
    interval: PositiveInt = 100
    """Steps between lines in the log."""
    image_interval: PositiveInt = 5000
    """Steps between training clips in TensorBoard."""
    save_interval: PositiveInt = 5000
    """Steps between checkpoints; one more is made at the end."""
    keep_last: PositiveInt = 3
    """Checkpoints that stay on disk, the newest ones."""
    keep_best: Annotated[int, Field(ge=0)] = 1
    """Weights that stay on disk beside them: those with the best validation score."""
    best_metric: str | None = None
    """Name of the metric that says which are best; null: the first of val.metrics."""
    safetensors: bool = True
    """Write the weights to use (averaged, where there is an average) as .safetensors beside each .pth too."""
    wandb: WandbOptions | None = None
    """Send the records to Weights & Biases too; needs the extra ``wandb``."""
    profile: ProfileOptions | None = None
    """Time the parts of some steps and write a trace, under profile/."""


class RunOptions(Options):
    name: Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]
    """Name of the run and of its folder: letters, digits, and . _ + - after the first."""
    plugins: tuple[Path, ...] = ()
    """Python files that register your own archs, losses, …; relative to the file that names them, and added to those of
    its ``_base_``."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Everything random follows from it: weights, data order, degradations."""
    device: str = "auto"
    """auto (CUDA where there is one, else CPU), cpu, cuda or cuda:N."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads for torch; 0 leaves torch's own choice."""


class TrainConfig(RunOptions):
    root: Path = Path("experiments")
    """Folder that holds the runs."""
    model: Annotated[Any, MODELS]
    """The training recipe of a stage, with its networks and losses."""
    pretrained: dict[str, Path] = {}
    """Weights to start from: name of the part (see the model) → checkpoint file."""
    data: TrainData
    """Training and validation clips."""
    train: TrainOptions
    """Optimization."""
    val: ValOptions = ValOptions()
    """Validation."""
    log: LogOptions = LogOptions()
    """Logs and checkpoints."""


class SaveOptions(Options):
    clips: Annotated[int, Field(ge=0)] = 3
    """How many clips of each split get videos, x–t slices and gain maps, the first ones."""
    crf: Annotated[int, Field(ge=0, le=51)] = 16
    """H.264 quality of the videos; lower is better."""
    worst: Annotated[int, Field(ge=0)] = 4
    """How many worst frames of each restorer the page shows, a split; 0: none are kept."""


class TestConfig(RunOptions):
    __test__: ClassVar[bool] = False  # for pytest: this is no test
    root: Path = Path("results")
    """Folder that holds the results."""
    data: Annotated[dict[str, Dataset], Field(min_length=1)]
    """Split → its clips to restore and score."""
    restorers: Annotated[dict[str, Annotated[Any, BASELINES]], Field(min_length=1)]
    """Row name → restorer. Every one sees the same clips."""
    metrics: tuple[Metric, ...]
    """What is measured."""
    paper: dict[str, Literal["mild", "medium", "heavy"]] = {}
    """Split → part of the paper's table A2 that is quoted beside it; splits with these names have theirs anyway."""
    save: SaveOptions = SaveOptions()
    """What is kept to look at."""
