"""Where the records of a run go besides its own files. The import of a module registers its tracker."""

from keep.training.trackers import mlflow, tensorboard, wandb
from keep.training.trackers.base import Tracker

__all__ = ["Tracker", "mlflow", "tensorboard", "wandb"]
