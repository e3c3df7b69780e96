"""The words in the metadata, the signature, and keep-verify."""

import datetime
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from drawn_faces import RED, Discs, Recorder, draw

from keep import verify
from keep.data.video_io import write_video
from keep.inference.video import Settings, Tools, restore_video
from keep.inference.video.provenance import STATEMENT, file_hash, origin, write_record
from keep.utils.errors import UserError


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "one.mp4"
    write_video(path, np.stack([draw([(RED, 60 + t, 57, 18)]) for t in range(8)]), fps=24)
    return path


def comment(path: Path) -> str:
    with av.open(str(path)) as container:
        return {k.lower(): v for k, v in container.metadata.items()}.get("comment", "")


def restored(video: Path, output: Path, **settings) -> None:
    restore_video(video, output, Tools(Recorder(32), Discs()), Settings(detect_every=1, **settings))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_metadata_say_that_faces_were_restored(tmp_path, video, suffix):
    output, again = tmp_path / f"out{suffix}", tmp_path / f"again{suffix}"
    restored(video, output)
    assert comment(output) == STATEMENT
    restored(output, again)
    assert comment(again) == STATEMENT, "once"
    assert comment(video) == ""


def test_a_video_without_faces_does_not_say_so(tmp_path):
    empty = tmp_path / "empty.mp4"
    write_video(empty, np.stack([draw([]) for _ in range(6)]), fps=24)
    restored(empty, tmp_path / "out.mp4", scale=2.0)
    assert comment(tmp_path / "out.mp4") == ""


def test_hashes_of_files_and_folders(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").write_bytes(b"one")
    first = file_hash(tmp_path / "a")
    assert file_hash(tmp_path / "a") == first
    (tmp_path / "a/1.png").rename(tmp_path / "a/2.png")
    assert file_hash(tmp_path / "a") != first


def test_a_record_fits_until_the_file_changes(tmp_path, video, capsys):
    output = tmp_path / "out.mp4"
    restored(video, output)
    assert verify.main([str(output)]) == 1
    assert "faces were restored by a neural network" in capsys.readouterr().out
    about = origin(video, {"weights": "lite", "sha256": "0123456789abcdef0"}, {"crf": 18, "sign": "secret.pem"})
    assert about["options"] == {"crf": 18}, "the certificate's place stays private"
    write_record(tmp_path / "out.confidence.json", output, about)
    assert verify.main([str(output)]) == 0
    shown = capsys.readouterr().out
    assert "out.confidence.json is its record: its hash agrees, but the record is not signed" in shown
    assert "; restored with lite, sha256 0123456789abcdef…" in shown
    output.write_bytes(output.read_bytes() + b"\0")
    assert verify.main([str(output)]) == 2
    assert "is the record of another file" in capsys.readouterr().out
    (tmp_path / "out.confidence.json").write_text("{}")
    assert verify.main([str(output)]) == 2
    assert verify.main([str(tmp_path / "none.mp4")]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"null", b"[]", b'"text"', b"{}", b"[" * 100_000, b'{"output": "x"}',
        b'{"output": {"sha256": 1}}',
        {"network": "weights"}, {"network": ["weights"]}, {"network": {"weights": {"a": 1}}}, {"network": None},
    ],
)  # fmt: skip
def test_a_malformed_record_is_one_line(tmp_path, capsys, content):
    output = tmp_path / "out.mp4"
    output.write_bytes(b"")
    if isinstance(content, dict):
        content = json.dumps({**content, "output": {"sha256": file_hash(output)}}).encode()
    (tmp_path / "out.confidence.json").write_bytes(content)
    assert verify.main([str(output)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "out.confidence.json is no record of a restoration: " in line] == lines[2:]
    assert not any(sign in lines[2] for sign in ("'", "{", "["))


def test_the_words_of_a_record_cannot_fake_a_line(tmp_path, video, capsys):
    write_record(tmp_path / "one.confidence.json", video, {"network": {"weights": "a\n\x1b[2Kfine", "sha256": ""}})
    assert verify.main([str(video)]) == 0
    assert capsys.readouterr().out.endswith("; restored with a??[2Kfine\n")


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (["signingCredential.untrusted", "assertion.bmffHash.mismatch"], "the file was changed after it was signed"),
        (["assertion.hashedURI.mismatch", "claimSignature.mismatch"], "the file was changed after it was signed"),
        (["signingCredential.untrusted"], "its certificate is not trusted here; the file was not changed"),
        (["signingCredential.expired"], "its certificate was not valid at the time of signing, or has expired"),
        (["signingCredential.untrusted", "claimSignature.outsideValidity"], "its certificate was not valid at the"),
        (["claim.malformed"], "its manifest is malformed (claim.malformed)"),
        ([], "its manifest is malformed"),
    ],
)
def test_why_a_signature_does_not_fit(tmp_path, monkeypatch, capsys, codes, words):
    class Reader:
        def __init__(self, *_) -> None:
            pass

        def get_validation_state(self) -> str:
            return "Invalid"

        def json(self) -> str:
            status = [{"code": code} for code in codes]
            return json.dumps({"active_manifest": "a", "manifests": {"a": {}}, "validation_status": status})

    given(monkeypatch, Reader)
    (tmp_path / "a.mp4").touch()
    assert verify.main([str(tmp_path / "a.mp4")]) == 2
    assert f"its signature does not fit: {words}" in capsys.readouterr().out


@pytest.mark.parametrize("store", ["", "[]", "{}", '{"active_manifest": "b", "manifests": {"a": {}}}'])
def test_a_manifest_without_an_active_one(tmp_path, monkeypatch, capsys, store):
    given(monkeypatch, lambda *_: SimpleNamespace(get_validation_state=lambda: "Valid", json=lambda: store))
    (tmp_path / "a.mp4").touch()
    assert verify.main([str(tmp_path / "a.mp4")]) == 2
    assert "a.mp4: its manifest cannot be read: " in capsys.readouterr().out


def given(monkeypatch, reader) -> None:
    """A stand-in for c2pa that reads a manifest."""
    error = type("C2paError", (Exception,), {"ManifestNotFound": type("ManifestNotFound", (Exception,), {})})
    monkeypatch.setitem(sys.modules, "c2pa", SimpleNamespace(Reader=reader, C2paError=error))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)


def certificate(folder: Path, start: datetime.datetime = datetime.datetime(2026, 1, 1), years: int = 20) -> Path:
    """A signing certificate with its chain and key, for tests only."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    kinds = x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME
    names = [x509.Name([x509.NameAttribute(kind, name) for kind in kinds]) for name in ("root", "signer")]

    def issue(number: int, root: bool):
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False,
        ) | ({"key_cert_sign": True, "crl_sign": True} if root else {"digital_signature": True})  # fmt: skip
        made = (
            x509.CertificateBuilder()
            .subject_name(names[number]).issuer_name(names[0]).public_key(keys[number].public_key())
            .serial_number(number + 1).not_valid_before(start).not_valid_after(start.replace(year=start.year + years))
            .add_extension(x509.BasicConstraints(root, None), True)
            .add_extension(x509.KeyUsage(**usage), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[number].public_key()), False)
        )  # fmt: skip
        if not root:
            made = made.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
            made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), False)
        return made.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    private = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "cert.pem"
    path.write_bytes(issue(1, False) + issue(0, True) + private)
    return path


def test_a_signed_video_shows_that_it_was_changed(tmp_path, video, capsys):
    pytest.importorskip("c2pa", reason="the extra sign is not installed")
    output = tmp_path / "out.mp4"
    restored(video, output, sign=str(certificate(tmp_path)))
    assert verify.main([str(output)]) == 0
    assert "its signature fits, by a certificate that is on no trust list here" in capsys.readouterr().out
    with av.open(str(output)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 8
    whole = output.read_bytes()
    data = bytearray(whole)
    data[data.index(b"mdat") + 200] ^= 1
    output.write_bytes(data)
    assert verify.main([str(output)]) == 2
    assert "its signature does not fit: the file was changed after it was signed\n" in capsys.readouterr().out
    data = bytearray(whole)
    start = data.index(b"c2pa.signature") + 500
    data[start] ^= 1
    output.write_bytes(data)
    assert verify.main([str(output)]) == 2
    assert "its manifest cannot be read: " in capsys.readouterr().out


def test_signing_is_refused_before_the_work(tmp_path, video):
    with pytest.raises(UserError, match="--sign writes into"):
        restored(video, tmp_path / "out.mkv", sign="cert.pem")
    reason = "must hold a certificate"
    try:
        import c2pa  # noqa: F401
    except ImportError:
        reason = "pip install keep-vfsr"
    (tmp_path / "none.pem").write_text("nothing")
    with pytest.raises(UserError, match=reason):
        restored(video, tmp_path / "out.mp4", sign=str(tmp_path / "none.pem"))
    assert not (tmp_path / "out.mp4").exists()
    assert json.dumps(STATEMENT).isascii()


class Refusing:
    """Stands in for c2pa's builder: every signature fails, after a part was written."""

    def __init__(self, manifest: str) -> None:
        self.title = json.loads(manifest)["title"]

    def sign(self, _signer, _kind, _source, target) -> None:
        assert self.title == "out.mp4", "not the temporary name"
        target.write(b"half")
        raise ValueError("the certificate was revoked\nmore")


@pytest.fixture
def refusing(monkeypatch) -> None:
    library = SimpleNamespace(
        Builder=Refusing, C2paError=ValueError, C2paSignerInfo=lambda *_: None, Signer=SimpleNamespace(from_info=id)
    )
    monkeypatch.setitem(sys.modules, "c2pa", library)


@pytest.mark.parametrize(("year", "dates"), [(2020, "2020-01-01 to 2022-01-01"), (2090, "2090-01-01 to 2092-01-01")])
def test_a_certificate_that_is_not_valid_now_is_refused_before_the_work(tmp_path, video, refusing, year, dates):
    path = certificate(tmp_path, datetime.datetime(year, 1, 1), 2)
    with pytest.raises(UserError, match=f"cert.pem: its certificate is valid from {dates} only"):
        restored(video, tmp_path / "out.mp4", sign=str(path))


def test_an_output_that_cannot_be_signed_is_not_left(tmp_path, video, refusing):
    path = certificate(tmp_path)
    with pytest.raises(UserError, match=r"out.mp4: cannot be signed: the certificate was revoked$"):
        restored(video, tmp_path / "out.mp4", sign=str(path), compare=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cert.pem", "one.mp4"]
