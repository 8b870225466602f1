from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rankd_contract.bundle import open_bundle
from rankd_contract.errors import CorruptBundle
from rankd_contract.manifest import GOLDEN, GRAPH, MANIFEST, SCHEMA, BundleManifest
from rankd_contract.repository import current_version, model_names, open_current, point_to, publish, versions
from tests.contract.tiny_bundle import FILES, MANIFEST_OF_TINY, TINY, altered, names, publish_tiny


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
from rankd_contract import bundle, repository
from tests.contract.tiny_bundle import publish_tiny

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
            if frame.f_code.co_filename not in (bundle.__file__, repository.__file__):
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
    found = repository.open_current(work, "films")
    content = found.graph.read_bytes()
    assert (found.digest == old) == (content == b"graph one"), steps
    assert content in (b"graph one", b"graph two"), steps
    assert repository.model_names(work) == ["films"], steps
    if steps % 4 == 0:
        after = publish_tiny(work, b"graph three")
        assert repository.open_current(work, "films") == after, steps
        assert after.manifest.version == max(repository.versions(work, "films")), steps
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
from rankd_contract import repository
from tests.contract.tiny_bundle import publish_tiny

work = Path(sys.argv[1])
before = publish_tiny(work)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    publish_tiny(work, bytes(8192))
except OSError as error:
    assert error.errno == errno.EFBIG
else:
    raise SystemExit("was published")
assert repository.open_current(work, "films") == before
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
from rankd_contract.repository import open_current
from tests.contract.tiny_bundle import publish_tiny

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
