from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
import zipfile
from pathlib import Path

import pytest

from rankd_training.data.download import RemoteFile, ignore_progress
from rankd_training.data.package_index import fetch_wheel
from rankd_training.errors import DigestMismatch, DownloadFailed
from tests.training.data.file_server import FileServer, Manner

NAME = "tinyfilms-1.0-py3-none-any.whl"
REQUIREMENT = "tinyfilms==1.0"


@pytest.fixture
def wheel(tmp_path: Path) -> bytes:
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tinyfilms/films.txt", "ratings\n" * 1000)
        info = "tinyfilms-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinyfilms\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture
def index(server: FileServer, wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A package index on loopback, and a pip that knows no other."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.address}/simple/")
    server.files["/simple/tinyfilms/"] = f'<a href="/files/{NAME}">{NAME}</a>'.encode()
    server.files[f"/files/{NAME}"] = wheel
    return server


def remote(wheel: bytes) -> RemoteFile:
    return RemoteFile(NAME, len(wheel), hashlib.sha256(wheel).hexdigest())


def test_a_wheel_is_found_through_the_index_that_pip_is_set_to(
    index: FileServer, wheel: bytes, tmp_path: Path
) -> None:
    seen: list[int] = []
    target = fetch_wheel(
        REQUIREMENT,
        remote(wheel),
        tmp_path / NAME,
        progress=lambda what, done_bytes, total_bytes: seen.append(done_bytes),
    )
    assert target.read_bytes() == wheel
    assert seen[-1] == len(wheel), "it came through our own download"
    assert importlib.util.find_spec("tinyfilms") is None, "nothing was installed"


def test_an_index_behind_a_login_that_only_pip_knows_is_reached_by_pip(
    index: FileServer, wheel: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.login = "ann:password"
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.address}/simple/".replace("//", "//ann:password@", 1))
    target = fetch_wheel(REQUIREMENT, remote(wheel), tmp_path / NAME, progress=ignore_progress)
    assert target.read_bytes() == wheel
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_wheel_in_a_plain_folder_is_taken_from_there(
    index: FileServer, wheel: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / NAME).write_bytes(wheel)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(mirror))
    target = fetch_wheel(REQUIREMENT, remote(wheel), tmp_path / NAME, progress=ignore_progress)
    assert target.read_bytes() == wheel
    assert index.asked == []


@pytest.mark.parametrize("way", ["our own download", "pip's download"])
def test_a_changed_wheel_is_refused_whichever_way_it_came(
    index: FileServer, wheel: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "pip's download":
        index.login = "ann:password"
        monkeypatch.setenv("PIP_INDEX_URL", f"{index.address}/simple/".replace("//", "//ann:password@", 1))
    wanted = RemoteFile(NAME, len(wheel), hashlib.sha256(b"the true one").hexdigest())
    with pytest.raises(DigestMismatch, match=wanted.sha256):
        fetch_wheel(REQUIREMENT, wanted, tmp_path / NAME, progress=ignore_progress)
    assert list(tmp_path.iterdir()) == []


def test_what_pip_cannot_find_is_told_in_pips_words(index: FileServer, wheel: bytes, tmp_path: Path) -> None:
    index.manners = [Manner.ABSENT]
    with pytest.raises(DownloadFailed, match=r"pip install failed: .*No matching distribution"):
        fetch_wheel(REQUIREMENT, remote(wheel), tmp_path / NAME, progress=ignore_progress)


def test_an_environment_without_pip_is_told_how_to_get_it(
    wheel: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DownloadFailed, match=r"uv pip install pip"):
        fetch_wheel(REQUIREMENT, remote(wheel), tmp_path / NAME, progress=ignore_progress)


def test_an_index_out_of_reach_is_told_from_one_that_lacks_the_wheel(
    index: FileServer, wheel: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{taken.getsockname()[1]}/simple/")
        with pytest.raises(DownloadFailed, match=r"failed after its connection broke: "):
            fetch_wheel(REQUIREMENT, remote(wheel), tmp_path / NAME, progress=ignore_progress)
