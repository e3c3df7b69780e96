"""Search of options: trials proposed by Optuna, each trained with the same seeds by ``keep.train``."""

from keep.training.sweep.search import run

__all__ = ["run"]
