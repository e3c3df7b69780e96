"""Weights on the Hugging Face hub, ``hf://ORG/NAME[/FILE][@REVISION]``, and local folders with the same files.

A repository, or a folder that was saved for one, holds ``model.safetensors``, ``config.json`` and a model card. Files
come from huggingface_hub's cache; without a network, or with ``HF_HUB_OFFLINE=1``, from the cache alone.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keep.utils.errors import UserError, first_line
from keep.utils.logging import log
from keep.utils.paths import expand

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
# Options of paths have one slash where two were written.
_ADDRESS = re.compile(rf"hf:/{{1,2}}({REPOSITORY.pattern})(?:/([^@]+))?(?:@(.+))?", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A file of a repository: ``repo`` is ORG/NAME; ``revision`` a branch, tag or commit, None: the main branch."""

    repo: str
    file: str = WEIGHTS
    revision: str | None = None

    def __str__(self) -> str:
        file = "" if self.file == WEIGHTS else f"/{self.file}"
        return f"hf://{self.repo}{file}" + (f"@{self.revision}" if self.revision else "")

    @property
    def download(self) -> str:
        """The command that downloads the repository."""
        return f"hf download {self.repo}" + (f" --revision {self.revision}" if self.revision else "")


def parse(name: str | Path) -> Address | None:
    """The address that ``name`` is; None for what does not begin with ``hf:/``.

    Raises:
        UserError: not of the form ``hf://ORG/NAME[/FILE][@REVISION]``.
    """
    if not str(name).startswith("hf:/"):
        return None
    found = _ADDRESS.fullmatch(str(name))
    if found is None:
        raise UserError(f"{name}: expected hf://ORG/NAME, hf://ORG/NAME@REVISION or hf://ORG/NAME/FILE")
    return Address(found[1], found[2] or WEIGHTS, found[3])


def shown(name: str | Path) -> str:
    """``name`` for messages: an address with both slashes."""
    return str(parse(name) or name)


def local_file(name: str | Path, cache: Path | None = None) -> Path:
    """The weight file that ``name`` stands for: of an address, the file in the cache; of a folder, the one in it.

    Any other name is returned as a path, whether it exists or not.

    Args:
        name: an address, a folder with a ``model.safetensors``, or a path.
        cache: folder of the hub's files; by default huggingface_hub's.

    Raises:
        UserError: as :func:`fetch`.
    """
    address = parse(name)
    if address is not None:
        return fetch(address, cache)
    path = expand(name)
    return path / WEIGHTS if (path / WEIGHTS).is_file() else path


def fetch(address: Address, cache: Path | None = None) -> Path:
    """The local copy of a file on the hub, downloaded if necessary.

    Raises:
        UserError: the package is missing; no such repository, revision or file; neither in the cache nor reachable.
    """
    library = import_library(str(address))
    errors = library.errors
    if not library.constants.HF_HUB_OFFLINE:  # without a network it takes half a minute until the cache is used
        log.info(f"{address}: asking the hub")
    try:
        found = library.hf_hub_download(
            address.repo, address.file, revision=address.revision, cache_dir=cache, library_name="keep-vfsr"
        )
    except errors.LocalEntryNotFoundError:
        offline = library.constants.HF_HUB_OFFLINE
        why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        folder = cache or library.constants.HF_HUB_CACHE
        raise UserError(
            f"{address} is not in the cache {folder}, and {why}: download it on a machine with a network "
            f"({address.download}), and copy the folder"
        ) from None
    except errors.GatedRepoError:
        raise UserError(f"{address}: its owner grants access on the page of the model, after `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{address}: there is no such model on the hub, or it is private: log in with `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{address}: the model has no revision {address.revision!r}") from None
    except errors.EntryNotFoundError:
        raise UserError(f"{address}: the model has no file {address.file}") from None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise UserError(f"{address}: {first_line(error)}") from None
    return Path(found)


def import_library(purpose: str) -> Any:
    """The module ``huggingface_hub``.

    Raises:
        UserError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        from huggingface_hub.utils import logging
    except ImportError:
        raise UserError(f'{purpose} needs the package huggingface_hub: pip install "keep-vfsr[hub]"') from None
    logging.set_verbosity_error()  # not a line for every try to connect
    return huggingface_hub
