"""Networks of other projects, exported as TorchScript."""

import warnings
from pathlib import Path
from typing import Any

import torch

from keep.utils.errors import OptionError, UserError
from keep.utils.paths import expand


def load_torchscript(path: Path) -> Any:
    """The network in the file, on the CPU, in evaluation mode.

    Raises:
        UserError: no such file, or not a TorchScript file.
    """
    path = expand(path)
    if not path.is_file():
        raise OptionError(f"{{place}}weights: there is no file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # deprecated, but networks are published in it
            return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} cannot be read as TorchScript: {reason}") from None
