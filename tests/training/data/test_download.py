from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import httpx
import pytest

from rankd_training.data.download import RemoteFile, fetch
from rankd_training.errors import DigestMismatch, DownloadFailed
from tests.training.data.file_server import FileServer, Manner

CONTENT = bytes(range(256)) * 1_024
REMOTE = RemoteFile("films.zip", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Calls:
    """Records instead of waiting or drawing."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.progress: list[tuple[int, int]] = []

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def show(self, what: str, done_bytes: int, total_bytes: int) -> None:
        assert what == REMOTE.name
        self.progress.append((done_bytes, total_bytes))


@pytest.fixture
def calls() -> Calls:
    return Calls()


def bring(server: FileServer, folder: Path, calls: Calls, *manners: Manner) -> Path:
    server.files["/films.zip"] = CONTENT
    server.manners = list(manners) or [Manner.PROPER]
    url = f"{server.address}/films.zip"
    return fetch(url, REMOTE, folder / "films.zip", progress=calls.show, pause=calls.pause)


def ranges(server: FileServer) -> list[str | None]:
    return [asked for _, asked in server.asked]


def test_a_file_arrives_whole_and_its_progress_ends_at_its_size(
    server: FileServer, tmp_path: Path, calls: Calls
) -> None:
    assert bring(server, tmp_path, calls).read_bytes() == CONTENT
    assert calls.progress[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["films.zip"]


def test_a_file_that_is_there_is_not_asked_for_again(
    server: FileServer, tmp_path: Path, calls: Calls
) -> None:
    bring(server, tmp_path, calls)
    bring(server, tmp_path, calls)
    assert len(server.asked) == 1


def test_a_damaged_file_that_is_there_is_brought_anew(
    server: FileServer, tmp_path: Path, calls: Calls
) -> None:
    (tmp_path / "films.zip").write_bytes(CONTENT[:-1] + b"!")
    assert bring(server, tmp_path, calls).read_bytes() == CONTENT


def test_a_cut_connection_is_resumed_where_it_broke(server: FileServer, tmp_path: Path, calls: Calls) -> None:
    assert bring(server, tmp_path, calls, Manner.CUT, Manner.PROPER).read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={len(CONTENT) // 2}-"]
    done = [done for done, _ in calls.progress]
    assert done == sorted(done), "progress never goes back while resuming"


def test_what_one_call_brought_is_kept_for_the_next(server: FileServer, tmp_path: Path, calls: Calls) -> None:
    with pytest.raises(DownloadFailed, match=r"films\.zip: .* after \d+ of 262144 bytes .*asked 4 times"):
        bring(server, tmp_path, calls, Manner.CUT)
    assert calls.pauses == [0.5, 1.0, 2.0]
    assert not (tmp_path / "films.zip").exists()
    arrived = (tmp_path / "films.zip.part").stat().st_size
    server.asked.clear()
    assert bring(server, tmp_path, calls).read_bytes() == CONTENT
    assert ranges(server) == [f"bytes={arrived}-"]


def test_a_complete_part_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "films.zip.part").write_bytes(CONTENT)
    assert fetch("http://127.0.0.1:9/films.zip", REMOTE, tmp_path / "films.zip").read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_still_gives_the_right_file(
    server: FileServer, tmp_path: Path, calls: Calls
) -> None:
    manners = (Manner.CUT, Manner.WITHOUT_RANGES)
    assert bring(server, tmp_path, calls, *manners).read_bytes() == CONTENT
    assert ranges(server)[1] is not None


def test_a_server_that_sends_another_range_is_asked_for_everything(
    server: FileServer, tmp_path: Path, calls: Calls
) -> None:
    manners = (Manner.CUT, Manner.OTHER_RANGE, Manner.PROPER)
    assert bring(server, tmp_path, calls, *manners).read_bytes() == CONTENT
    assert ranges(server)[2] is None


def test_a_part_of_another_file_costs_one_more_try_and_no_error(
    server: FileServer, tmp_path: Path, calls: Calls
) -> None:
    (tmp_path / "films.zip.part").write_bytes(b"something else")
    assert bring(server, tmp_path, calls).read_bytes() == CONTENT
    assert ranges(server) == ["bytes=14-", None]


def test_a_part_beyond_the_servers_file_is_dropped(server: FileServer, tmp_path: Path, calls: Calls) -> None:
    server.files["/films.zip"] = CONTENT[:100]
    (tmp_path / "films.zip.part").write_bytes(CONTENT[:200])
    with pytest.raises(DownloadFailed, match="offers 100 of 262144 bytes"):
        fetch(f"{server.address}/films.zip", REMOTE, tmp_path / "films.zip", pause=calls.pause)
    assert list(tmp_path.iterdir()) == []


def test_wrong_content_is_refused_with_both_digests_and_removed(
    server: FileServer, tmp_path: Path, calls: Calls
) -> None:
    with pytest.raises(DigestMismatch, match=REMOTE.sha256) as refusal:
        bring(server, tmp_path, calls, Manner.OTHER_CONTENT)
    assert refusal.value.actual in str(refusal.value)
    assert refusal.value.actual != REMOTE.sha256
    assert list(tmp_path.iterdir()) == []


def test_a_login_page_is_not_taken_for_the_file(server: FileServer, tmp_path: Path, calls: Calls) -> None:
    manners = (Manner.CUT, Manner.LOGIN_PAGE, Manner.PROPER)
    assert bring(server, tmp_path, calls, *manners).read_bytes() == CONTENT
    assert ranges(server)[2] == f"bytes={len(CONTENT) // 2}-", "what had arrived was not overwritten"


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path, calls: Calls) -> None:
    assert bring(server, tmp_path, calls, Manner.BUSY, Manner.PROPER).read_bytes() == CONTENT
    assert len(calls.pauses) == 1


def test_a_missing_file_is_not_asked_for_again(server: FileServer, tmp_path: Path, calls: Calls) -> None:
    with pytest.raises(DownloadFailed, match="answered 404"):
        bring(server, tmp_path, calls, Manner.ABSENT)
    assert len(server.asked) == 1


def test_a_server_that_is_down_is_named(tmp_path: Path, calls: Calls) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/films.zip"
        with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1:\d+/films\.zip: ConnectError"):
            fetch(url, REMOTE, tmp_path / "films.zip", pause=calls.pause)


def test_a_silent_server_costs_its_timeout_and_no_more(tmp_path: Path, calls: Calls) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/films.zip"
        with pytest.raises(DownloadFailed, match="ReadTimeout after 0 of"):
            fetch(
                url,
                REMOTE,
                tmp_path / "films.zip",
                timeout=httpx.Timeout(0.05),
                attempts=2,
                pause=calls.pause,
            )


def test_an_address_that_is_no_web_address_is_refused(tmp_path: Path, calls: Calls) -> None:
    with pytest.raises(DownloadFailed, match="cannot be fetched"):
        fetch("file:///tmp/films.zip", REMOTE, tmp_path / "films.zip", pause=calls.pause)
    assert calls.pauses == []


def test_errors_show_no_secrets_of_the_address(server: FileServer, tmp_path: Path, calls: Calls) -> None:
    url = f"{server.address}/films.zip?token=secret".replace("//", "//ann:password@")
    with pytest.raises(DownloadFailed) as failure:
        fetch(url, REMOTE, tmp_path / "films.zip", pause=calls.pause)
    assert "password" not in str(failure.value)
    assert "secret" not in str(failure.value)


def test_a_folder_that_cannot_be_written_is_named(server: FileServer, tmp_path: Path, calls: Calls) -> None:
    with pytest.raises(DownloadFailed, match=r"cannot write .*absent"):
        bring(server, tmp_path / "absent", calls)
