"""Signs a record of the restoration into a video as a C2PA manifest, and reads it again (extra ``sign``)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keep.utils.errors import UserError, first_line
from keep.utils.io import AtomicWrite
from keep.utils.version import __version__

LABEL = "org.keep.restoration"
"""Of the record in the manifest."""
TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime"}
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\n?", re.S)


def load_signer(path: str | Path) -> Any:
    """The signer of a PEM file with the certificate, its chain and the private key.

    Raises:
        UserError: c2pa is not installed, or the file does not hold these.
    """
    c2pa = _c2pa()
    try:
        text = Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--sign: {path}: cannot be read as PEM: {error}") from None
    parts = [(match[1], match[0]) for match in PEM.finditer(text)]
    certificates = "".join(block for kind, block in parts if kind == "CERTIFICATE")
    keys = [block for kind, block in parts if kind.endswith("PRIVATE KEY")]
    if not certificates or len(keys) != 1:
        raise UserError(f"--sign: {path}: must hold a certificate, its chain, and one private key, as PEM")
    try:
        _check_dates(certificates, path)
        info = c2pa.C2paSignerInfo(_algorithm(keys[0]), certificates.encode(), keys[0].encode(), None)
        return c2pa.Signer.from_info(info)
    except (c2pa.C2paError, ValueError, TypeError) as error:
        raise UserError(f"--sign: {path}: cannot sign with it: {error}") from None


def check_signing(output: Path, certificate: str) -> None:
    """Raise UserError if an output of this name could not be signed."""
    if output.suffix.lower() not in TYPES:
        raise UserError(f"{output}: --sign writes into {', '.join(sorted(TYPES))} only")
    load_signer(certificate)


def sign(path: Path, certificate: str, record: Mapping[str, Any], output: Path) -> None:
    """Replace a video by the same video with a signed manifest that holds the record.

    Args:
        path: the video, under a temporary name or its own.
        certificate: PEM file, see :func:`load_signer`.
        record: of :func:`keep.inference.video.provenance.origin`.
        output: the video's own name.

    Raises:
        UserError: it cannot be signed; the video stays as it is.
    """
    c2pa, signer = _c2pa(), load_signer(certificate)
    manifest = {
        "claim_generator_info": [{"name": "KEEP", "version": __version__}],
        "title": output.name,
        "assertions": [
            {
                "label": "c2pa.actions",
                "data": {
                    "actions": [
                        {"action": "c2pa.created", "digitalSourceType": SOURCE, "description": record["statement"]}
                    ]
                },
            },
            {"label": LABEL, "data": dict(record)},
        ],
    }
    signed = AtomicWrite(output)
    try:
        with path.open("rb") as source, signed.temporary.open("w+b") as target:
            c2pa.Builder(json.dumps(manifest)).sign(signer, TYPES[output.suffix.lower()], source, target)
        signed.temporary.replace(path)
    except c2pa.C2paError as error:
        raise UserError(f"{output}: cannot be signed: {first_line(error)}") from None
    finally:
        signed.discard()


@dataclass(frozen=True)
class Manifest:
    """What C2PA says of a file's manifest.

    Attributes:
        state: ``Trusted``, ``Valid`` (by a certificate that is on no list of trusted ones) or ``Invalid``.
        failures: C2PA's codes of what failed.
        record: what :func:`sign` stored; None if the manifest is of another program. Its content is not checked.
    """

    state: str
    failures: tuple[str, ...]
    record: Any


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a file; None without one.

    Raises:
        UserError: c2pa is not installed, or cannot read the manifest.
    """
    c2pa = _c2pa()
    kind = TYPES.get(path.suffix.lower())
    if kind is None:
        return None
    try:
        with path.open("rb") as file:
            reader = c2pa.Reader(kind, file)
            state, store = reader.get_validation_state(), json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return None
    except (c2pa.C2paError, ValueError) as error:
        raise UserError(f"{path}: its manifest cannot be read: {first_line(error)}") from None
    try:
        assertions = store["manifests"][store["active_manifest"]].get("assertions", ())
        records = [a.get("data", {}) for a in assertions if a["label"].startswith(LABEL)]
        failures = tuple(status["code"] for status in store.get("validation_status") or ())
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: its manifest cannot be read: it has another form than C2PA's") from None
    return Manifest(state or "Invalid", failures, records[0] if records else None)


def _c2pa() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise UserError("signatures need c2pa: pip install keep-vfsr[sign]") from error
    return c2pa


def _check_dates(certificates: str, path: str | Path) -> None:
    """Raise UserError if the first certificate is not valid now: C2PA would refuse it after the work."""
    from cryptography.x509 import load_pem_x509_certificates

    first = load_pem_x509_certificates(certificates.encode())[0]
    start, end = first.not_valid_before_utc, first.not_valid_after_utc
    if not start <= datetime.now(UTC) <= end:
        raise UserError(f"--sign: {path}: its certificate is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d} only")


def _algorithm(key: str) -> str:
    """C2PA's name of the algorithm of a private key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    loaded = load_pem_private_key(key.encode(), None)
    if isinstance(loaded, ec.EllipticCurvePrivateKey):
        names = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if loaded.curve.name in names:
            return names[loaded.curve.name]
    if isinstance(loaded, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise ValueError("its key is of a kind that C2PA does not know")
