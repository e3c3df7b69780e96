"""Checks what a restored video says of its origin."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import av
import av.error
from pydantic import BaseModel, Field, ValidationError

from keep.inference.video.outputs import record_of
from keep.inference.video.provenance import STATEMENT, file_hash
from keep.inference.video.signing import read_manifest
from keep.utils.errors import UserError
from keep.utils.validation import first_mistake

FITS, NOTHING, WRONG = 0, 1, 2
"""Results: everything found fits the file; nothing was found; something does not fit."""

UNTRUSTED = "signingCredential.untrusted"
REASONS = {
    ".mismatch": "the file was changed after it was signed",
    "assertion.missing": "the file was changed after it was signed",
    "signingCredential.expired": "its certificate was not valid at the time of signing, or has expired",
    "claimSignature.outsideValidity": "its certificate was not valid at the time of signing, or has expired",
    "signingCredential.revoked": "its certificate was revoked",
    "signingCredential.ocsp.revoked": "its certificate was revoked",
    "signingCredential.invalid": "its certificate is not one for signing such files",
}
"""End of a C2PA code of a failure → in plain words."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Network(BaseModel):
    """The network of a record."""

    weights: str = ""
    sha256: str = ""


class Origin(BaseModel):
    """The part of a record that is shown; the rest may be anything."""

    network: Network = Network()

    def words(self) -> str:
        """The network in words, behind another sentence."""
        if not self.network.weights:
            return ""
        digest = f", sha256 {self.network.sha256[:16]}…" if self.network.sha256 else ""
        words = f"; restored with {self.network.weights}{digest}"
        return "".join(letter if letter.isprintable() else "?" for letter in words)


class Output(BaseModel):
    """The file that a record is about."""

    sha256: Digest


class Record(Origin):
    """A record beside a file."""

    output: Output


def verify(path: Path) -> tuple[int, list[str]]:
    """What was found of a file's origin: the result, and lines for the user.

    Raises:
        UserError: there is no such file.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    checks = [_statement(path), _manifest(path), _record(path)]
    results = [result for result, _ in checks]
    worst = WRONG if WRONG in results else FITS if FITS in results else NOTHING
    return worst, [f"{path}: {line}" for _, line in checks]


def _statement(path: Path) -> tuple[int, str]:
    """The words in the metadata. They prove nothing, since anybody can write or remove them."""
    try:
        with av.open(str(path)) as container:
            texts = container.metadata.values()
    except (av.error.FFmpegError, OSError):
        return NOTHING, "its metadata cannot be read"
    if any(STATEMENT in text for text in texts):
        return NOTHING, "its metadata says that faces were restored by a neural network"
    return NOTHING, "its metadata does not say that faces were restored"


def _manifest(path: Path) -> tuple[int, str]:
    if importlib.util.find_spec("c2pa") is None:
        return NOTHING, "a signature cannot be checked without c2pa: pip install keep-vfsr[sign]"
    try:
        found = read_manifest(path)
    except UserError as error:
        return WRONG, str(error).removeprefix(f"{path}: ")
    if found is None:
        return NOTHING, "it is not signed"
    if found.state not in ("Valid", "Trusted"):
        return WRONG, f"its signature does not fit: {failed(found.failures)}"
    try:
        words = Origin.model_validate({} if found.record is None else found.record).words()
    except ValidationError:
        return WRONG, "its signature fits, but the record in it is malformed"
    trust = "" if found.state == "Trusted" else ", by a certificate that is on no trust list here"
    return FITS, f"its signature fits{trust}{words}"


def failed(codes: Sequence[str]) -> str:
    """C2PA's codes of what failed, in plain words."""
    worse = [code for code in codes if code != UNTRUSTED]
    if codes and not worse:
        return "its certificate is not trusted here; the file was not changed"
    known = [next((words for end, words in REASONS.items() if code.endswith(end)), "") for code in worse]
    if not any(known):
        return f"its manifest is malformed ({', '.join(worse) or 'no reason is given'})"
    return "; ".join(dict.fromkeys(words for words in known if words))


def _record(path: Path) -> tuple[int, str]:
    beside = record_of(path)
    if not beside.is_file():
        return NOTHING, f"there is no record {beside.name} beside it"
    try:
        record = Record.model_validate_json(beside.read_bytes())
    except ValidationError as error:
        return WRONG, f"{beside.name} is no record of a restoration: {first_mistake(error)}"
    if record.output.sha256 != file_hash(path):
        return WRONG, f"{beside.name} is the record of another file, or this one was changed since"
    unsigned = "its hash agrees, but the record is not signed: anybody can have written it"
    return FITS, f"{beside.name} is its record: {unsigned}{record.words()}"
