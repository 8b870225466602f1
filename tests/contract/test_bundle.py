from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rankd_contract.bundle import (
    Bundle,
    current_version,
    model_names,
    open_bundle,
    open_current,
    point_to,
    publish,
    versions,
)
from rankd_contract.errors import CorruptBundle
from rankd_contract.manifest import GOLDEN, GRAPH, MANIFEST, SCHEMA, BundleManifest
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import inputs, outputs

SCHEMA_TEXT = """{rankd_schema: 1, name: tiny, tasks: [{name: click}], views: [
{name: u, entity: user, key: u, fields: [{name: uf, kind: categorical, dtype: int64, hash: 9}]},
{name: i, entity: item, key: i, fields: [{name: if, kind: categorical, dtype: int64, hash: 9}]}]}"""
TINY = parse_schema(SCHEMA_TEXT)
MANIFEST_OF_TINY = BundleManifest(
    model="films",
    version=0,
    architecture="mlcc",
    created_at="2026-11-22T10:00:00Z",
    schema_fingerprint=f"{TINY.fingerprint:016x}",
    tasks=("click",),
    fusion={"click": 1.0},
    inputs=inputs(TINY),
    outputs=outputs(TINY),
    opset=17,
    golden_tolerance=1e-5,
)
FILES: dict[str, bytes | Path] = {GRAPH: b"graph one", SCHEMA: SCHEMA_TEXT.encode(), GOLDEN: b"golden one"}
Damage = Callable[[Path], object]


def publish_tiny(repository: Path, graph: bytes = b"graph one") -> Bundle:
    return publish(repository, MANIFEST_OF_TINY, {**FILES, GRAPH: graph})


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_a_published_bundle_is_the_current_one(tmp_path: Path) -> None:
    published = publish_tiny(tmp_path)
    opened = open_current(tmp_path, "films")
    assert opened == published
    assert opened.path == tmp_path / "films" / "1"
    assert opened.manifest.version == 1
    assert opened.schema == TINY
    assert opened.graph.read_bytes() == b"graph one"
    assert opened.golden.read_bytes() == b"golden one"
    assert (current_version(tmp_path, "films"), versions(tmp_path, "films"), model_names(tmp_path)) == (
        1,
        [1],
        ["films"],
    )


def test_files_on_disk_are_published_like_bytes(tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"graph one")
    weights.chmod(0o444)
    published = publish(tmp_path / "repository", MANIFEST_OF_TINY, {**FILES, GRAPH: weights})
    assert published.graph.read_bytes() == b"graph one"
    assert published.manifest.files[GRAPH].bytes == 9


def test_the_next_version_takes_over_and_the_last_stays(tmp_path: Path) -> None:
    first = publish_tiny(tmp_path)
    second = publish_tiny(tmp_path, b"graph two")
    assert (first.manifest.version, second.manifest.version) == (1, 2)
    assert open_current(tmp_path, "films").graph.read_bytes() == b"graph two"
    assert open_bundle(first.path) == first


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


def altered(bundle: Bundle, change: Callable[[dict[str, object]], object]) -> None:
    """Rewrite the manifest and the pointer as someone would who may write both."""
    path = bundle.path / MANIFEST
    tree = json.loads(path.read_bytes())
    change(tree)
    path.write_bytes(json.dumps(tree).encode())


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


def test_a_manifest_that_was_not_published_is_refused_by_the_pointer(tmp_path: Path) -> None:
    bundle = publish_tiny(tmp_path)
    altered(bundle, lambda t: t.update(golden_tolerance=1e9))
    open_bundle(bundle.path)
    with pytest.raises(CorruptBundle, match="not the one that was published"):
        open_current(tmp_path, "films")


def test_an_unknown_model_has_no_pointer(tmp_path: Path) -> None:
    with pytest.raises(CorruptBundle, match="no usable pointer"):
        open_current(tmp_path, "films")
    assert versions(tmp_path, "films") == []
    assert model_names(tmp_path) == []


# publishing


BAD: dict[str, tuple[BundleManifest, dict[str, bytes | Path]]] = {
    "no golden requests": (MANIFEST_OF_TINY, {GRAPH: b"g", SCHEMA: FILES[SCHEMA]}),
    "no schema": (MANIFEST_OF_TINY, {GRAPH: b"g", GOLDEN: b"g"}),
    "broken schema": (MANIFEST_OF_TINY, {**FILES, SCHEMA: b"rankd_schema: 2"}),
    "another schema": (replace(MANIFEST_OF_TINY, schema_fingerprint="0" * 16), FILES),
    "a name with a path": (MANIFEST_OF_TINY, {**FILES, "../films/current.json": b"x"}),
    "a name in a folder": (MANIFEST_OF_TINY, {**FILES, "weights/a.bin": b"x"}),
    "the manifest's name": (MANIFEST_OF_TINY, {**FILES, MANIFEST: b"x"}),
    "NaN in a report": (replace(MANIFEST_OF_TINY, metrics={"auc": float("nan")}), FILES),
}


@pytest.mark.parametrize("what", list(BAD))
def test_a_bundle_that_could_not_be_opened_is_never_published(what: str, tmp_path: Path) -> None:
    before = publish_tiny(tmp_path)
    with pytest.raises((CorruptBundle, ValueError)):
        publish(tmp_path, *BAD[what])
    assert open_current(tmp_path, "films") == before
    assert names(tmp_path / "films") == {"1", "current.json", ".lock"}


@pytest.mark.parametrize("model", ["", ".", "..", "../x", "a/b", "-x", ".x", "a b", "a\0b", "x" * 65, "é"])
def test_a_model_name_cannot_leave_the_repository(model: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptBundle, match="model name"):
        publish(tmp_path, replace(MANIFEST_OF_TINY, model=model), FILES)
    assert not names(tmp_path)


# F2: the publisher kills itself with SIGKILL before each line it executes in turn.
KILLED_AT_EACH_STEP = """
import os, shutil, signal, sys
from pathlib import Path
from rankd_contract import bundle
from tests.contract.test_bundle import publish_tiny

os.fsync = lambda handle: None  # outlives a power cut, which a kill is not; and is slow
base, work = Path(sys.argv[1]), Path(sys.argv[2])
steps = 0
old = publish_tiny(base).digest
while True:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base, work)
    child = os.fork()
    if child == 0:
        left = steps
        def trace(frame, event, argument):
            global left
            if frame.f_code.co_filename != bundle.__file__:
                return None
            if event == "line":
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
            return trace
        sys.settrace(trace)
        publish_tiny(work, b"graph two")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    found = bundle.open_current(work, "films")
    content = found.graph.read_bytes()
    assert (found.digest == old) == (content == b"graph one"), steps
    assert content in (b"graph one", b"graph two"), steps
    assert bundle.model_names(work) == ["films"], steps
    if steps % 4 == 0:
        after = publish_tiny(work, b"graph three")
        assert bundle.open_current(work, "films") == after, steps
        assert after.manifest.version == max(bundle.versions(work, "films")), steps
        assert not list(work.glob("*/.incoming")), steps
    if os.WIFEXITED(status):
        assert status == 0, status
        break
    steps += 1
print(steps)
"""


def run_script(script: str, *arguments: Path | str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OPENBLAS_NUM_THREADS": "1",
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.fault("F2")
def test_a_publisher_killed_at_any_step_leaves_the_old_version_or_the_new(tmp_path: Path) -> None:
    steps = int(run_script(KILLED_AT_EACH_STEP, tmp_path / "base", tmp_path / "work"))
    assert steps > 80


FULL_DISK = """
import errno, os, resource, sys
from pathlib import Path
from rankd_contract import bundle
from tests.contract.test_bundle import publish_tiny

work = Path(sys.argv[1])
before = publish_tiny(work)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    publish_tiny(work, bytes(8192))
except OSError as error:
    assert error.errno == errno.EFBIG
else:
    raise SystemExit("was published")
assert bundle.open_current(work, "films") == before
print(sorted(p.name for p in (work / "films").iterdir()))
"""


@pytest.mark.fault("F11")
def test_a_full_disk_fails_the_publisher_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert run_script(FULL_DISK, tmp_path).strip() == "['.lock', '1', 'current.json']"


@pytest.mark.fault("F11")
def test_a_pointer_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = publish_tiny(tmp_path)
    fsync = os.fsync

    def full(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().name.endswith("current.json"):
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        publish_tiny(tmp_path, b"graph two")
    monkeypatch.undo()
    assert open_current(tmp_path, "films") == before
    assert names(tmp_path / "films") == {"1", "2", "current.json", ".lock"}
    assert publish_tiny(tmp_path, b"graph three").manifest.version == 3


RACER = """
import os, sys
from pathlib import Path
from rankd_contract.bundle import open_current
from tests.contract.test_bundle import publish_tiny

os.fsync = lambda handle: None
for turn in range(int(sys.argv[3])):
    content = f"{sys.argv[2]} {turn}".encode()
    mine = publish_tiny(Path(sys.argv[1]), content)
    assert mine.graph.read_bytes() == content
    open_current(Path(sys.argv[1]), "films")
"""


@pytest.mark.fault("F13")
def test_racing_publishers_take_turns(tmp_path: Path) -> None:
    racers, turns = 3, 12
    with ThreadPoolExecutor(racers) as pool:
        list(pool.map(lambda name: run_script(RACER, tmp_path, name, str(turns)), "abc"))
    assert versions(tmp_path, "films") == list(range(1, racers * turns + 1))
    found = [open_bundle(tmp_path / "films" / str(v)).graph.read_text() for v in versions(tmp_path, "films")]
    assert sorted(found) == sorted(f"{name} {turn}" for name in "abc" for turn in range(turns))
    assert current_version(tmp_path, "films") == racers * turns


def test_a_copied_bundle_is_not_served_under_another_name(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    shutil.copytree(tmp_path / "films", tmp_path / "copy")
    with pytest.raises(CorruptBundle, match="holds films version 1"):
        open_current(tmp_path, "copy")
    assert open_current(tmp_path, "films").manifest.version == 1


def test_no_pointer_is_moved_to_a_folder_that_holds_another_version(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    shutil.copytree(tmp_path / "films" / "1", tmp_path / "films" / "7")
    with pytest.raises(CorruptBundle, match="its manifest is that of films version 1"):
        point_to(tmp_path, "films", 7)
    assert current_version(tmp_path, "films") == 1


@pytest.mark.parametrize("model", ["../outside", "/etc", "a/b", "", "a\nb"])
def test_a_manifest_names_no_place(model: str, tmp_path: Path) -> None:
    """Whoever writes files for a bundle names them by its model."""
    bundle = publish_tiny(tmp_path)
    manifest = json.loads((bundle.path / MANIFEST).read_text())
    (bundle.path / MANIFEST).write_text(json.dumps({**manifest, "model": model}))
    with pytest.raises(CorruptBundle, match="model is no name"):
        open_bundle(bundle.path)
