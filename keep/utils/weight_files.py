"""Checkpoint files: atomic to write, safe to read (no code runs, checksums compared), strict to load."""

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.nn as nn

from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite
from keep.utils.paths import expand

State = Mapping[str, torch.Tensor]
CHECKSUM = "tensors_sha256"
"""Key of :func:`checksum` in the metadata of the safetensors files written here."""


def save(path: Path, content: Any) -> None:
    """``torch.save`` as a durable atomic write: after a crash or a power cut the old or the new file is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with AtomicWrite(path, durable=True) as temporary, temporary.open("xb") as file:
        writer = _Writer(file)
        try:
            torch.save(content, writer)  # pyright: ignore[reportArgumentType]  # it needs write and flush alone
        except RuntimeError:  # after a failed write, torch reports an unexpected position
            if writer.error is None:
                raise
            raise writer.error from None


class _Writer:
    """The file for ``torch.save``; keeps the error of a failed write."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.error = file, None
        self.flush = file.flush

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise


def save_safetensors(path: Path, state: State, metadata: Mapping[str, str]) -> None:
    """As :func:`save`, in the safetensors format: tensors, and metadata as text, with a checksum of the tensors."""
    import safetensors.torch

    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for k, v in state.items():
        v = v.detach().cpu().contiguous()
        tensors[k] = v.clone() if v.data_ptr() in seen else v  # the format refuses two names of one tensor
        seen.add(v.data_ptr())
    path.parent.mkdir(parents=True, exist_ok=True)
    with AtomicWrite(path, durable=True) as temporary, temporary.open("xb") as file:
        file.write(safetensors.torch.save(tensors, metadata={**metadata, CHECKSUM: checksum(tensors)}))


def checksum(state: State) -> str:
    """The sha256 of names, types, shapes and bytes of tensors, as hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def find_damage(path: Path) -> str:
    """What is wrong with a file in PyTorch's format, or ``""``. Checks every byte (CRC-32).

    Files of PyTorch before 1.6 are no archives and have no checksum: they pass.
    """
    try:
        if not zipfile.is_zipfile(path):
            return ""
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            return f"its part {broken} is damaged" if broken else ""
    except Exception as error:  # damaged bytes make zipfile raise a dozen kinds
        return str(error) or type(error).__name__


def load(path: Path | str) -> Any:
    """The content of a checkpoint file, on the CPU. Reads tensors and plain data only (``weights_only``).

    The checksums in the file are compared: a single wrong bit is an error. A ``.safetensors`` file gives
    ``{"params": tensors, **metadata}``; ``arch`` is parsed from JSON.

    Raises:
        UserError: the file is missing, not a checkpoint, truncated, damaged, or holds code.
    """
    path = expand(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    try:
        if damage := find_damage(path):
            raise UserError(f"{path} is damaged, copy or download it again: {damage}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if any(sign in str(error) for sign in ("GLOBAL", "Unsupported global", "unrecognized function")):
            raise UserError(
                f"{path} holds more than tensors and plain data; it is not loaded, because that could run code"
            ) from None
        raise UserError(f"{path} is not a checkpoint, or is truncated: {_reason(path, error)}") from None
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # torch.load raises a dozen kinds for a file that is no checkpoint
        raise UserError(f"{path} is not a checkpoint, or is truncated: {_reason(path, error)}") from None


def _reason(path: Path, error: Exception) -> str:
    """Why ``torch.load`` refused a file. Its own message is about opcodes of pickle."""
    with path.open("rb") as file:
        start = file.read(24)
    if not start:
        return "it is empty"
    if start.startswith((b"PK", b"\x80")):  # a zip archive, or a pickle: PyTorch's own formats
        torchscript = "TorchScript" in str(error)
        return "it is a TorchScript archive" if torchscript else "its data are incomplete or of another kind"
    line = start.decode("latin-1").partition("\n")[0]
    return f"it begins with {line!r}" if line.isprintable() and line.isascii() else "it does not begin like one"


def _load_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            about: dict[str, Any] = dict(file.metadata() or {})
            if "arch" in about:
                about["arch"] = json.loads(about["arch"])
            params = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no mapping
    except (SafetensorError, OSError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"{path} is not a safetensors file, or is truncated ({first})") from None
    if about.pop(CHECKSUM, None) not in (None, checksum(params)):
        raise UserError(f"{path} is damaged, copy or download it again: its tensors do not have the checksum in it")
    return {**about, "params": params}


def network_state(content: Any, path: Path | str, prefer: str = "ema") -> tuple[State, str]:
    """The weights in a checkpoint and their key, or ``bare`` for a plain state dict.

    Args:
        content: of :func:`load`: a plain state dict, or one under ``params_ema``, ``params`` (BasicSR), ``model`` or
            ``state_dict``.
        path: for messages.
        prefer: ``"ema"`` or ``"online"``, if the file has both.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not the weights of a network")
    order = ["params_ema", "params"] if prefer == "ema" else ["params", "params_ema"]
    for key in (*order, "model", "state_dict"):
        inner = content.get(key)
        if isinstance(inner, Mapping) and inner and all(isinstance(v, torch.Tensor) for v in inner.values()):
            return inner, key
    if content and all(isinstance(v, torch.Tensor) for v in content.values()):
        return content, "bare"
    raise UserError(f"{path} holds no network weights; its keys: {', '.join(map(str, list(content)[:5]))}")


def load_network(path: Path | str, prefer: str = "ema") -> State:
    """The weights in a checkpoint file; see :func:`load` and :func:`network_state`."""
    return network_state(load(path), path, prefer)[0]


def fill(module: nn.Module, state: State, path: Path | str, what: str = "") -> list[str]:
    """Load ``state`` into ``module``; every name and shape must fit.

    Args:
        module: receives the weights.
        state: the weights.
        path: their file, for messages.
        what: name of the module in messages; by default its class.

    Returns:
        The names of the tensors that were loaded.

    Raises:
        UserError: weights of another network; lists the first differences. Nothing is loaded.
    """
    # Files of PyTorch 0.4.0 and older lack the counters of batch norm; load_state_dict sets them.
    own = {k: v for k, v in module.state_dict().items() if k in state or not k.endswith("num_batches_tracked")}
    check_fit(own, state, path, what or type(module).__name__)
    module.load_state_dict(dict(state))
    return list(state)


def check_fit(own: State, state: State, path: Path | str, what: str) -> None:
    """Raise UserError with the first differences unless names and shapes of both are equal."""
    rows = [f"{k} is missing" for k in own if k not in state]
    rows += [f"{k} is unknown" for k in state if k not in own]
    rows += [
        f"{k} is {_size(state[k])}, not {_size(own[k])}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]  # fmt: skip
    if rows:
        more = f"; and {len(rows) - 3} more" if len(rows) > 3 else ""
        raise UserError(f"{path} holds the weights of another network than {what}: {'; '.join(rows[:3])}{more}")


def _size(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
