from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rankd_contract.bundle import open_bundle
from rankd_contract.errors import CorruptBundle
from rankd_contract.manifest import GRAPH, MANIFEST
from rankd_contract.repository import open_current
from tests.contract.tiny_bundle import altered, publish_tiny

Damage = Callable[[Path], object]


@pytest.mark.fault("F1")
def test_any_flipped_byte_is_refused(tmp_path: Path) -> None:
    bundle = publish_tiny(tmp_path)
    for path in [*sorted(bundle.path.iterdir()), tmp_path / "films" / "current.json"]:
        sound = path.read_bytes()
        for at in range(len(sound)):
            path.write_bytes(sound[:at] + bytes([sound[at] ^ (1 << at % 8)]) + sound[at + 1 :])
            with pytest.raises(CorruptBundle):
                open_current(tmp_path, "films")
        path.write_bytes(sound)
    assert open_current(tmp_path, "films") == bundle


def swap(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).rename(folder.parent / name)
        make(folder / name)

    return damage


def beside(path: Path) -> Path:
    return path.parent.parent / path.name


DAMAGES: dict[str, tuple[Damage, str]] = {
    "extra file": (lambda f: (f / "notes.txt").write_text("x"), "not in the manifest: ['notes.txt']"),
    "extra folder": (lambda f: (f / "more").mkdir(), "not in the manifest: ['more']"),
    "hidden file": (lambda f: (f / ".x").write_text("x"), "not in the manifest: ['.x']"),
    "missing graph": (lambda f: (f / GRAPH).unlink(), f"files missing: ['{GRAPH}']"),
    "missing manifest": (lambda f: (f / MANIFEST).unlink(), f"no readable {MANIFEST}"),
    "cut": (lambda f: (f / GRAPH).write_bytes(b"graph"), "5 bytes, the manifest says 9"),
    "empty": (lambda f: (f / GRAPH).write_bytes(b""), "0 bytes, the manifest says 9"),
    "same size": (lambda f: (f / GRAPH).write_bytes(b"graph owe"), "SHA-256 differs"),
    "symlink": (swap(GRAPH, lambda p: p.symlink_to(beside(p))), "plain file of its own"),
    "dangling symlink": (swap(GRAPH, lambda p: p.symlink_to("nowhere")), "plain file of its own"),
    "hard link": (swap(GRAPH, lambda p: p.hardlink_to(beside(p))), "plain file of its own"),
    "folder": (swap(GRAPH, lambda p: p.mkdir()), "plain file of its own"),
    "pipe": (swap(GRAPH, os.mkfifo), "plain file of its own"),
    "manifest symlink": (swap(MANIFEST, lambda p: p.symlink_to(beside(p))), f"no readable {MANIFEST}"),
    "manifest hard link": (swap(MANIFEST, lambda p: p.hardlink_to(beside(p))), f"no readable {MANIFEST}"),
    "manifest folder": (swap(MANIFEST, lambda p: p.mkdir()), f"no readable {MANIFEST}"),
    "manifest pipe": (swap(MANIFEST, os.mkfifo), f"no readable {MANIFEST}"),
    "huge manifest": (lambda f: os.truncate(f / MANIFEST, 1 << 30), f"no readable {MANIFEST}"),
    "bundle gone": (shutil.rmtree, f"no readable {MANIFEST}"),
}


@pytest.mark.fault("F6", "F12")
@pytest.mark.timeout(10)
@pytest.mark.parametrize("what", list(DAMAGES))
def test_a_bundle_is_a_closed_list_of_plain_files(what: str, tmp_path: Path) -> None:
    bundle = publish_tiny(tmp_path)
    damage, says = DAMAGES[what]
    damage(bundle.path)
    with pytest.raises(CorruptBundle) as refused:
        open_bundle(bundle.path)
    assert says in str(refused.value)
    with pytest.raises(CorruptBundle) as refused:
        open_current(tmp_path, "films")
    assert says in str(refused.value)


@pytest.mark.fault("F6")
@pytest.mark.parametrize("name", ["../1/x", "/etc/hostname", "a/b", "..", ""])
def test_a_manifest_cannot_name_a_file_outside(name: str, tmp_path: Path) -> None:
    bundle = publish_tiny(tmp_path)
    altered(bundle, lambda t: t.update(files={**dict(t["files"]), name: {"bytes": 1, "sha256": ""}}))  # type: ignore[call-overload]
    with pytest.raises(CorruptBundle, match="files missing"):
        open_bundle(bundle.path)


@pytest.mark.fault("F5")
def test_a_schema_that_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    bundle = publish_tiny(tmp_path)
    altered(bundle, lambda t: t.update(schema_fingerprint="0" * 16))
    with pytest.raises(CorruptBundle, match=r"fingerprint [0-9a-f]{16}, the manifest says 0{16}"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("model", ["../outside", "/etc", "a/b", "", "a\nb"])
def test_a_manifest_names_no_place(model: str, tmp_path: Path) -> None:
    """Whoever writes files for a bundle names them by its model."""
    bundle = publish_tiny(tmp_path)
    manifest = json.loads((bundle.path / MANIFEST).read_text())
    (bundle.path / MANIFEST).write_text(json.dumps({**manifest, "model": model}))
    with pytest.raises(CorruptBundle, match="model is no name"):
        open_bundle(bundle.path)
