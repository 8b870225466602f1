"""Only bundles that a trusted key signed are served, where keys are set; real keys, as openssl makes them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from rankd_contract.bundle import open_bundle, read_seal
from rankd_contract.errors import CorruptBundle
from rankd_contract.manifest import MANIFEST
from rankd_contract.repository import publish
from rankd_contract.seal import SEAL, Seal, key_id, signed_text
from rankd_export.errors import KeyUnusable
from rankd_export.signing import sealer, sign
from rankd_service.app import build
from rankd_service.errors import BundleRefused, StartupFailed
from rankd_service.inference.loader import load_current
from rankd_service.settings import Settings
from rankd_service.settings_sources import load_settings
from tests.rankd.test_cli import rankd
from tests.support.bundles import publish_bundle
from tests.support.memory_store import MemoryStore

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("cryptography") is None or shutil.which("openssl") is None,
    reason="needs pip install 'rankd[signing]', and openssl, which makes the keys",
)


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def key_pair(folder: Path, name: str, algorithm: str = "ed25519") -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    openssl("genpkey", "-algorithm", algorithm, "-out", str(private))
    openssl("pkey", "-in", str(private), "-pubout", "-out", str(public))
    return private, public


def settings(repository: Path, *keys: Path) -> Settings:
    return load_settings(models={"repository": repository, "trusted_keys": keys, "trial_s": 0})


def refusal(repository: Path, *keys: Path) -> str:
    with pytest.raises(BundleRefused) as refused:
        load_current(repository, "films", settings(repository, *keys))
    return str(refused.value)


@needs_library
def test_only_a_bundle_that_a_trusted_key_signed_is_served(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    others, others_public = key_pair(tmp_path, "others")
    repository = tmp_path / "models"
    bundle = publish_bundle(repository)
    assert "films version 1: is not signed" in refusal(repository, public)
    sign(bundle, others)
    assert "those of models.trusted_keys are" in refusal(repository, public)
    assert load_current(repository, "films", settings(repository)).card.version == 1  # nobody is asked for
    sign(bundle, private)
    for keys in ((public,), (others_public, public)):
        assert load_current(repository, "films", settings(repository, *keys)).card.version == 1
    assert [p.name for p in repository.joinpath("films").iterdir() if p.name.startswith(".man")] == []


@needs_library
def test_a_manifest_that_was_changed_after_it_was_verified_is_not_signed(tmp_path: Path) -> None:
    private, _ = key_pair(tmp_path, "ours")
    bundle = publish_bundle(tmp_path / "models")
    path = bundle.path / MANIFEST
    tree = json.loads(path.read_bytes())
    path.write_text(json.dumps({**tree, "architecture": "another"}))
    with pytest.raises(CorruptBundle, match="was changed since the bundle was verified"):
        sign(bundle, private)
    assert not (bundle.path / SEAL).exists()


@needs_library
def test_a_signature_of_another_manifest_is_none(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    repository = tmp_path / "models"
    first, second = publish_bundle(repository), publish_bundle(repository)
    sign(first, private)
    shutil.copy(first.path / SEAL, second.path / SEAL)
    assert "its signature is not of this manifest" in refusal(repository, public)
    tree = json.loads((first.path / SEAL).read_bytes())
    flipped = bytes([bytes.fromhex(tree["signature"])[0] ^ 1]).hex() + tree["signature"][2:]
    (second.path / SEAL).write_text(json.dumps({**tree, "signature": flipped}))
    assert "its signature is not of this manifest" in refusal(repository, public)


@needs_library
def test_a_bundle_is_signed_as_it_is_published_so_that_no_service_sees_it_unsigned(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    unsigned = publish_bundle(tmp_path / "elsewhere")
    files: dict[str, bytes | Path] = {name: unsigned.path / name for name in unsigned.manifest.files}
    bundle = publish(tmp_path / "models", unsigned.manifest, files, sealer(private))
    seal = read_seal(bundle)
    assert seal is not None
    assert load_current(tmp_path / "models", "films", settings(tmp_path / "models", public)).card.version == 1


@needs_library
def test_the_commands_sign_and_verify(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    _, others = key_pair(tmp_path, "others")
    publish_bundle(tmp_path / "models")
    verify = ("bundle", "verify", "models/films", "--public-key")
    before = rankd(*verify, str(public), cwd=tmp_path)
    assert before.returncode == 1
    assert "is not signed" in before.stderr
    signed = rankd("bundle", "sign", "models/films", "--key", str(private), cwd=tmp_path)
    assert signed.returncode == 0, signed.stderr
    after = rankd(*verify, str(public), cwd=tmp_path)
    assert after.returncode == 0, after.stderr
    assert "signed by the key " in after.stdout
    assert rankd(*verify, str(others), cwd=tmp_path).returncode == 1
    wrong = rankd("bundle", "sign", "models/films", "--key", str(public), cwd=tmp_path)
    assert wrong.returncode == 1
    assert "no private key in PEM" in wrong.stderr


@needs_library
def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    curve, curve_public = key_pair(tmp_path, "curve", "x25519")
    for path, said in (
        (nonsense, "no private key in PEM"),
        (curve, "is a key of another kind, expected Ed25519"),
        (tmp_path / "absent.pem", "cannot be read: No such file"),
    ):
        with pytest.raises(KeyUnusable, match=f"{path.name}: {said}"):
            sealer(path)
    for path, said in (
        (nonsense, "no public key in PEM"),
        (curve_public, "is a key of another kind, expected Ed25519"),
        (tmp_path / "absent.pem", "cannot be read: No such file"),
    ):
        with pytest.raises(StartupFailed, match=f"models.trusted_keys: .*{path.name}: {said}"):
            build(settings(tmp_path, path), MemoryStore())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"algorithm": "none", "key": "x", "signature": ""}',
        b'{"algorithm": "ed25519", "key": "x", "signature": "zz"}',
        b'{"algorithm": "ed25519", "key": "x", "signature": "00"}',
        b"[" * 5000,
        b" " * 5000,
    ],
)
def test_a_signature_file_of_anything_else_is_refused_in_words(content: bytes, tmp_path: Path) -> None:
    bundle = publish_bundle(tmp_path)
    (bundle.path / SEAL).write_bytes(content)
    with pytest.raises(CorruptBundle, match=SEAL):
        read_seal(bundle)
    assert open_bundle(bundle.path).digest == bundle.digest  # who wants no signature looks at none


def test_a_seal_comes_back_as_it_was_and_is_of_bundles_alone(tmp_path: Path) -> None:
    seal = Seal(key_id(bytes(32)), bytes(range(64)))
    assert Seal.from_json(seal.to_json()) == seal
    text = (publish_bundle(tmp_path).path / MANIFEST).read_bytes()
    assert signed_text(text) != text
    link = tmp_path / "films" / "1" / SEAL
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptBundle, match="must be a plain file"):
        read_seal(open_bundle(link.parent))


@pytest.mark.skipif(importlib.util.find_spec("cryptography") is not None, reason="it is installed")
def test_where_the_library_is_not_installed_its_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupFailed, match=r"pip install 'rankd\[signing\]'"):
        build(settings(tmp_path, tmp_path / "key.pem"), MemoryStore())
