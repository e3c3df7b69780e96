"""The network with the methods of the Hugging Face hub.

    from keep import KEEP
    net = KEEP.from_pretrained("org/name", revision="v2")      # or a folder, or any weight file
    net.save_pretrained("my_model", licence="cc-by-nc-4.0")    # config.json, model.safetensors, README.md
    net.push_to_hub("org/name")
"""  # fmt: skip

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from keep.archs import keep as networks
from keep.archs.from_shapes import arch_of
from keep.inference.model_card import card, read_scores, without_folders
from keep.inference.weights import PUBLISHED, SHIPPED, Params, build_arch, read, stored_arch
from keep.inference.weights.config_file import check_config
from keep.utils import hub, weight_files
from keep.utils.errors import UserError, first_line
from keep.utils.io import write_file
from keep.utils.paths import expand
from keep.utils.version import __version__


class KEEP(networks.KEEP):
    """The network of :mod:`keep.archs.keep`, with loading from the hub and saving for it.

    Attributes:
        about: what the weight file records of its training: version, step, options, pretrained; empty without a file.
        source: the weight file; None without one.
    """

    about: dict[str, Any]
    source: Path | None = None

    @classmethod
    def from_pretrained(
        cls, source: str | Path, revision: str | None = None, *, params: Params = "ema", cache: str | Path | None = None
    ) -> Self:
        """The network with trained weights, on the CPU, in evaluation mode.

        Args:
            source: ``ORG/NAME`` on the hub, a folder of :meth:`save_pretrained`, a weight file, or a name as in
                ``docs/weights.md``.
            revision: branch, tag or commit of the hub; None: the main branch.
            params: averaged (``ema``) or ``online`` weights, if the file has both.
            cache: folder of downloads.

        Raises:
            UserError: no such model or file, the weights of another network, or a ``config.json`` that contradicts
                them.
        """
        name = _name(source, revision)
        folder = None if cache is None else Path(cache)
        weights = read(name, params, folder)
        arch = stored_arch(weights)
        if weights.arch is None:  # else `read` has compared them
            check_config(name, weights.path, arch, folder)
        net = build_arch(arch, weights.path, weights.state, cls)
        weight_files.fill(net, weights.state, weights.path)
        if not isinstance(net, cls):
            raise UserError(f"{weights.path} holds a {type(net).__name__}, not a {cls.__name__}")
        net.arch, net.about, net.source = arch, dict(weights.about), weights.path  # type: ignore[assignment]
        return net.eval()

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        name: str | None = None,
        results: str | Path | None = None,
        licence: str | None = None,
        half: bool = False,
    ) -> Path:
        """Write ``model.safetensors``, ``config.json`` and a model card, each atomically.

        Args:
            folder: made if necessary; its other files stay.
            name: of the model in the card; by default the folder's.
            results: folder of a test of these weights by ``keep-test``, for the card.
            licence: for the card: an identifier of the hub, e.g. ``cc-by-nc-4.0``, or words.
            half: write float16; networks that load it compute in float32.

        Returns:
            The folder.
        """
        folder = expand(folder)
        about, arch = published(getattr(self, "about", {"version": __version__})), without_folders(arch_of(self))
        scores = self._scores(expand(results)) if results is not None else None
        numbers = sum(parameter.numel() for parameter in self.parameters())
        state = {k: v.half() if half and v.is_floating_point() else v for k, v in self.state_dict().items()}
        text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in {**about, "arch": arch}.items()}
        metadata = {"format": "pt", "layout": "ours", **text}
        weight_files.save_safetensors(folder / hub.WEIGHTS, state, metadata)
        config = {"model_type": "keep", "keep_version": __version__, "arch": arch}
        write_file(folder / hub.CONFIG, json.dumps(config, indent=2) + "\n")
        write_file(folder / hub.CARD, card(name or folder.resolve().name, arch, about, numbers, scores, licence))
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        private: bool | None = None,
        message: str = "Upload of a KEEP network",
        token: str | None = None,
        results: str | Path | None = None,
        licence: str | None = None,
        half: bool = False,
    ) -> str:
        """Upload what :meth:`save_pretrained` writes; the repository is made if necessary.

        Args:
            repo_id: ``ORG/NAME``.
            revision: branch, made if necessary; None: the main branch.
            private: of a new repository; None: the organization's default.
            message: of the commit.
            token: of the hub; by default that of ``hf auth login``.
            results: as for :meth:`save_pretrained`.
            licence: as for :meth:`save_pretrained`.
            half: as for :meth:`save_pretrained`.

        Returns:
            The address of the commit.

        Raises:
            UserError: the package is missing, a name that the hub does not take, no network, or no permission.
        """
        library = hub.import_library("push_to_hub")
        if not hub.REPOSITORY.fullmatch(repo_id):
            raise UserError(f"{repo_id}: expected ORG/NAME")
        api = library.HfApi(token=token, library_name="keep-vfsr", library_version=__version__)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, name=repo_id, results=results, licence=licence, half=half)
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                if revision is not None:
                    api.create_branch(repo_id, branch=revision, exist_ok=True)
                done = api.upload_folder(repo_id=repo_id, folder_path=folder, revision=revision, commit_message=message)
            except Exception as error:  # the library raises those of its HTTP client, too
                raise UserError(f"{repo_id}: cannot upload: {first_line(error)}") from None
        return str(done.commit_url)

    def _scores(self, results: Path) -> str:
        if self.source is None:
            raise UserError(f"{results}: this network was not loaded from a file, so nothing tells that it was tested")
        return read_scores(results, self.source)


def published(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a file records, without absolute paths and trackers: an address of a tracker may hold a password."""
    found = without_folders(about)
    if log := (found.get("options") or {}).get("log"):
        log.pop("trackers", None)
    return found


def _name(source: str | Path, revision: str | None) -> str | Path:
    """``source`` as :func:`keep.inference.weights.find` takes it."""
    named, known = str(source), {*SHIPPED, *PUBLISHED}
    address = hub.parse(named)
    if address is None and named not in known and hub.REPOSITORY.fullmatch(named) and not expand(source).exists():
        address = hub.Address(named)
    if address is None:
        if revision is not None:
            raise UserError(f"revision: {source} is on this machine; only models on the hub have revisions")
        return source
    return str(hub.Address(address.repo, address.file, revision or address.revision))
