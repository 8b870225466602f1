"""What `current.json` may hold, and which folders are models."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankd_contract.errors import CorruptBundle
from rankd_contract.repository import model_names, open_current
from tests.contract.tiny_bundle import publish_tiny

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
POINTER_TREES = st.fixed_dictionaries({"version": JSON, "manifest_sha256": JSON | st.just("ab" * 32)}).map(
    lambda tree: json.dumps(tree).encode()
)
DIGEST = b"ab" * 32
POINTERS: dict[str, bytes | None] = {
    "none": None,
    "empty": b"",
    "no parts": b"{}",
    "a list": b"[]",
    "a number": b"3",
    "null": b"null",
    "no digest": b'{"version": 1}',
    "no version": b'{"manifest_sha256": "%b"}' % DIGEST,
    "no text": b"\xff",
    "NUL": b"\0" * 100,
    "deep list": b"[" * 100_000,
    "deep mapping": b'{"a":' * 100_000,
    **{
        f"version {version.decode()[:9]}": b'{"version": %b, "manifest_sha256": "%b"}' % (version, DIGEST)
        for version in (
            *(b'"1"', b'"x"', b"-1", b"0", b"1.0", b"true", b"null", b"[1]", b"1e400", b"NaN"),
            *(b"9" * 400, b"9" * 5000, b'"../1"', b'"1\\u0000"'),
        )
    },
    **{
        f"digest {digest.decode()[:9]}": b'{"version": 1, "manifest_sha256": %b}' % digest
        for digest in (b"3", b'"abc"', b"[]", b'"\\u0000"', b'"\\ud800"')
    },
}


@pytest.mark.parametrize("pointer", POINTERS.values(), ids=list(POINTERS))
def test_a_pointer_that_points_nowhere_is_refused(pointer: bytes | None, tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    path = tmp_path / "films" / "current.json"
    path.unlink() if pointer is None else path.write_bytes(pointer)
    with pytest.raises(CorruptBundle, match=r"current\.json: no usable pointer") as refused:
        open_current(tmp_path, "films")
    assert len(str(refused.value).splitlines()) == 1
    assert model_names(tmp_path) == ["films"]


@given(st.binary(max_size=80) | JSON.map(lambda tree: json.dumps(tree).encode()) | POINTER_TREES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_pointer_whatsoever_raises_anything_else(tmp_path: Path, pointer: bytes) -> None:
    home = tmp_path / "films"
    home.mkdir(exist_ok=True)
    (home / "current.json").write_bytes(pointer)
    with pytest.raises(CorruptBundle):
        open_current(tmp_path, "films")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda p: p.symlink_to("nowhere")])
def test_a_pointer_that_is_no_plain_file_is_refused_at_once(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    publish_tiny(tmp_path)
    path = tmp_path / "films" / "current.json"
    path.unlink()
    make(path)
    with pytest.raises(CorruptBundle, match="no usable pointer"):
        open_current(tmp_path, "films")
    assert model_names(tmp_path) == ["films"]


@pytest.mark.parametrize("model", ["a\0b", "x" * 300, "\udcff", "../films", "a/b"])
def test_a_model_nobody_could_have_published_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptBundle, match="no usable pointer"):
        open_current(tmp_path, model)


def test_only_folders_that_were_published_to_are_models(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "unfinished" / ".incoming").mkdir(parents=True)
    (tmp_path / "without-a-pointer" / "1").mkdir(parents=True)
    assert model_names(tmp_path) == ["films", "without-a-pointer"]


def test_a_repository_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CorruptBundle, match="file: cannot be listed: Not a directory"):
        model_names(tmp_path / "file")
    assert model_names(tmp_path / "nowhere") == []
