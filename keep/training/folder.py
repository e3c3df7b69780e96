"""The folder of a run: which checkpoint files exist, which are kept, and which state a resume starts from.

``experiments/NAME/`` holds ``models/net_STEP.pth`` (weights to use), ``training_states/STEP.state`` (everything that a
resume needs) and the resolved options. :mod:`keep.training.checkpoint` writes and reads these files.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path

from keep.config.reading import to_yaml
from keep.config.schema import TrainConfig
from keep.training.distributed import Ranks
from keep.training.run import Run
from keep.utils import weight_files
from keep.utils.errors import UserError
from keep.utils.io import link_or_copy, remove_hidden_files, write_file
from keep.utils.lock import lock
from keep.utils.logging import log

# --- files ------------------------------------------------------------------------------------------------------


def state_path(folder: Path, step: int) -> Path:
    return folder / f"training_states/{step}.state"


def weights_path(folder: Path, step: int) -> Path:
    return folder / f"models/net_{step}.pth"


def list_states(folder: Path) -> dict[int, Path]:
    """Step → training state, in order of steps."""
    found = {int(p.stem): p for p in (folder / "training_states").glob("*.state") if p.stem.isdigit()}
    return dict(sorted(found.items()))


def list_weights(folder: Path) -> dict[int, Path]:
    """Step → weights, in order of steps."""
    found = {p.stem.removeprefix("net_"): p for p in (folder / "models").glob("net_*.pth")}
    return dict(sorted((int(k), p) for k, p in found.items() if k.isdigit()))


def link_weights(path: Path, name: str) -> None:
    """Make ``models/NAME.pth`` and ``.safetensors`` the weights at ``path``.

    If a format is missing at ``path``, the old link is removed.
    """
    for source in (path, path.with_suffix(".safetensors")):
        target = path.with_name(name + source.suffix)
        if source.exists():
            link_or_copy(source, target)
        else:
            target.unlink(missing_ok=True)


# --- which files are kept ---------------------------------------------------------------------------------------


def best_steps(scores: Mapping[int, float], higher_is_better: bool | None, count: int) -> list[int]:
    """The steps with the ``count`` best scores, the best first; of two equal scores, the older step first.

    Args:
        scores: step → score; NaN is no score.
        higher_is_better: whether a higher score is better; None: scores choose nothing.
        count: how many steps at most.
    """
    if higher_is_better is None:
        return []
    known = [s for s, value in scores.items() if value == value]
    return sorted(known, key=lambda s: (-scores[s] if higher_is_better else scores[s], s))[:count]


def prune(run: Run, higher_is_better: bool | None) -> None:
    """Delete all but the newest states, the newest weights and the best weights; link ``net_best`` to the best."""
    weights, last = list_weights(run.folder), run.config.log.keep_last
    best = best_steps({s: v for s, v in run.scores.items() if s in weights}, higher_is_better, run.config.log.keep_best)
    for path in list(list_states(run.folder).values())[:-last]:
        path.unlink()
    for step in list(weights)[:-last]:
        if step not in best:
            weights[step].unlink()
            weights[step].with_suffix(".safetensors").unlink(missing_ok=True)
    if best:
        link_weights(weights_path(run.folder, best[0]), "net_best")


# --- opening ----------------------------------------------------------------------------------------------------


def only_run(config: TrainConfig, ranks: Ranks) -> AbstractContextManager[None]:
    """Refuse a second live run of the same name: it would rename the first one's folder or move its checkpoints."""
    return lock(config.root / config.name) if ranks.first else nullcontext()


def find_state(config: TrainConfig, resume: str | None, ranks: Ranks) -> Path | None:
    """The ``.state`` file that ``resume`` names, the same in all processes; None to start a new run.

    ``auto`` is the newest intact one in the run's folder. A damaged file is reported and skipped.
    """
    if resume is None or resume != "auto":
        return Path(resume) if resume else None
    path = None
    if ranks.first:
        for candidate in reversed(list_states(config.root / config.name).values()):
            if damage := state_damage(candidate):
                log.warning(f"warning: skipped the damaged checkpoint {candidate} ({damage})")
            else:
                path = candidate
                break
    return ranks.broadcast(path)


def state_damage(path: Path) -> str:
    """What is wrong with a state file; ``""`` when a run can resume from it."""
    try:
        weight_files.load(path)
        return ""
    except UserError as error:
        return str(error)


def open_folder(run: Run, fresh: bool) -> None:
    """Create the run's folder and write the resolved options into it. All processes call it.

    Args:
        run: the run.
        fresh: a new run: an existing folder of that name is renamed. False: a resumed one, whose later checkpoints
            are moved to ``left_…/``.
    """
    if run.ranks.first:
        folder = run.folder
        stamp = f"{datetime.now():%Y%m%d_%H%M%S_%f}"
        if fresh and folder.exists():
            archived = folder.with_name(f"{folder.name}_archived_{stamp}")
            folder.rename(archived)
            log.info(f"{folder} exists; renamed it to {archived}")
        folder.mkdir(parents=True, exist_ok=True)
        for part in ("models", "training_states"):
            remove_hidden_files(folder / part)
        move_later_checkpoints(folder, run.step, stamp)
        write_file(folder / "options.yml", to_yaml(run.config))
    run.ranks.barrier()


def move_later_checkpoints(folder: Path, step: int, stamp: str) -> None:
    """Move the checkpoints after ``step`` to ``left_STAMP/``: a run resumed at ``step`` writes its own."""
    later = [p for s, p in [*list_states(folder).items(), *list_weights(folder).items()] if s > step]
    if not later:
        return
    target = folder / f"left_{stamp}"
    target.mkdir()
    for path in later:
        for file in (path, path.with_suffix(".safetensors")):
            if file.exists():
                file.rename(target / file.name)
    log.info(f"resuming from step {step}; moved later checkpoints to {target}")
    if remaining := list(list_weights(folder).values()):
        link_weights(remaining[-1], "net_latest")
    for path in (folder / "models").glob("net_best.*"):  # the next checkpoint links it again
        path.unlink()
