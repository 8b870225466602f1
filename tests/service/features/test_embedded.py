from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from rankd_service.errors import StartupFailed
from rankd_service.features import embedded
from rankd_service.features.embedded import SNAPSHOT, EmbeddedStore
from rankd_service.features.store_state import StoreState, is_free, started_at
from tests.support.valkey import free_port

pytestmark = pytest.mark.redis

SOURCES = os.pathsep.join(sys.path)


def ask(store: EmbeddedStore, *command: str | bytes) -> Any:
    with redis.Redis.from_url(store.url, socket_timeout=10, protocol=2) as client:
        return client.execute_command(*command)


def port_of(store: EmbeddedStore) -> int:
    return int(store.url.rpartition(":")[2].partition("/")[0])


def until(true: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Look at another process's state until it is so; fails past the limit."""
    give_up, looked = time.monotonic() + limit_s, threading.Event()
    while not true():
        assert time.monotonic() < give_up
        looked.wait(0.01)


class Other:
    """Another process that uses the same folder, driven over its pipes."""

    SCRIPT = """
import sys
from pathlib import Path
from rankd_service.features.embedded import EmbeddedStore
store = EmbeddedStore.attach_or_start(Path(sys.argv[1]))
print(store.url, store.pid, store.owned, flush=True)
sys.stdin.readline()
store.stop()
"""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.SCRIPT, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": SOURCES},
        )
        assert self.process.stdout is not None
        self.url, pid, owned = self.process.stdout.readline().split()
        self.server_pid, self.owned = int(pid), owned == "True"

    def stop(self) -> None:
        self.process.communicate("\n", timeout=20)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def others() -> Iterator[list[Other]]:
    started: list[Other] = []
    yield started
    for other in started:
        other.kill()


def test_a_started_store_takes_commands_and_ends_when_stopped(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "new" / "store") as store:
        assert ask(store, "PING")
        assert store.alive
        assert store.owned
        pid, port = store.pid, port_of(store)
        assert started_at(pid) is not None
    assert started_at(pid) is None
    assert is_free(port)
    assert not store.alive
    assert sorted(p.name for p in (tmp_path / "new" / "store").iterdir()) == ["store.lock"]


def test_only_this_host_can_reach_it(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        found = ask(store, "CONFIG GET", "*")
        assert found["bind"] == "127.0.0.1"
        assert found["save"] == ""
        assert found["dbfilename"] == SNAPSHOT
        assert Path(found["dir"]) == tmp_path


def test_a_store_that_is_not_started_has_no_address(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    assert not store.alive
    store.stop()
    with pytest.raises(StartupFailed, match="is not started"):
        _ = store.url


def test_a_store_is_started_once(tmp_path: Path) -> None:
    with EmbeddedStore.attach_or_start(tmp_path) as store:
        with pytest.raises(StartupFailed, match="started before"):
            store.start()
        assert ask(store, "PING")
    store.stop()


def test_rows_that_were_saved_are_back_after_a_restart(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        ask(store, "SET", "row", b"\x00\xff")
        ask(store, "SAVE")
        ask(store, "SET", "later", b"lost")
    assert (tmp_path / SNAPSHOT).exists()
    with EmbeddedStore(tmp_path) as store:
        assert ask(store, "GET", "row") == b"\x00\xff"
        assert ask(store, "GET", "later") is None


def test_it_survives_neither_the_end_nor_the_killing_of_its_process(
    tmp_path: Path, others: list[Other]
) -> None:
    for way in ("stop", "kill"):
        other = Other(tmp_path)
        others.append(other)
        assert other.owned
        assert started_at(other.server_pid) is not None
        other.stop() if way == "stop" else other.kill()
        until(lambda pid=other.server_pid: started_at(pid) is None)  # type: ignore[misc]


def test_it_dies_with_its_process_even_when_frozen(tmp_path: Path, others: list[Other]) -> None:
    other = Other(tmp_path)
    others.append(other)
    os.kill(other.server_pid, signal.SIGSTOP)
    other.kill()
    until(lambda: started_at(other.server_pid) is None)


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    thread = threading.Thread(target=store.start)
    thread.start()
    thread.join()
    with store:
        with pytest.raises(subprocess.TimeoutExpired):
            store._process.wait(0.3)  # type: ignore[union-attr]
        assert ask(store, "PING")


def test_an_interrupt_from_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        assert os.getpgid(store.pid) != os.getpgid(0)


def test_a_fork_of_the_process_does_not_stop_it(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from rankd_service.features.embedded import EmbeddedStore
store = EmbeddedStore.attach_or_start(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    store.stop()
    os._exit(0)
os.waitpid(child, 0)
assert store.alive
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
        check=True,
        env={**os.environ, "PYTHONPATH": SOURCES},
        timeout=30,
    )


# sharing


def test_a_second_process_joins_the_server_of_the_first_and_leaves_it_running(
    tmp_path: Path, others: list[Other]
) -> None:
    with EmbeddedStore(tmp_path) as store:
        other = Other(tmp_path)
        others.append(other)
        assert (other.url, other.server_pid, other.owned) == (store.url, store.pid, False)
        other.stop()
        assert store.alive
        assert ask(store, "PING")


def test_a_frozen_server_is_joined_and_not_doubled(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        os.kill(store.pid, signal.SIGSTOP)
        with EmbeddedStore(tmp_path) as second:
            assert second.pid == store.pid
            assert not second.owned
        os.kill(store.pid, signal.SIGCONT)
        assert ask(store, "PING")


def test_of_many_starts_at_once_one_wins_and_the_others_join_it(tmp_path: Path, others: list[Other]) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: EmbeddedStore.attach_or_start(tmp_path), range(4)))
        found = list(pool.map(lambda _: Other(tmp_path), range(2)))
    others.extend(found)
    assert len({s.url for s in stores} | {o.url for o in found}) == 1
    assert sum(s.owned for s in stores) + sum(o.owned for o in found) == 1
    for store in stores:
        store.stop()


STALE: dict[str, Callable[[StoreState], object]] = {
    "process gone": lambda live: {"pid": 2**22 - 3, "port": live.port, "started": "1"},
    "id used again": lambda live: {"pid": os.getpid(), "port": live.port, "started": "1"},
    "other port": lambda live: {"pid": os.getpid(), "port": free_port(), "started": started_at(os.getpid())},
    "no number": lambda live: {"pid": "x", "port": live.port, "started": "1"},
    "half": lambda live: {"pid": live.pid},
    "a list": lambda live: [1, 2],
}


@pytest.mark.parametrize("what", [*STALE, "no JSON", "a folder"])
def test_a_file_that_names_no_running_server_is_ignored(what: str, tmp_path: Path) -> None:
    live = StoreState(os.getpid(), free_port(), "1")
    path = tmp_path / "store.json"
    if what == "a folder":
        path.mkdir()
        (path / "x").touch()
        with pytest.raises(StartupFailed, match="cannot keep a store here"):
            EmbeddedStore.attach_or_start(tmp_path)
        return
    path.write_text("{" if what == "no JSON" else json.dumps(STALE[what](live)))
    with EmbeddedStore(tmp_path) as store:
        assert store.owned
        assert ask(store, "PING")
        assert StoreState.read(tmp_path) == StoreState(store.pid, port_of(store), started_at(store.pid) or "")


def test_a_new_server_listens_where_the_last_one_did(tmp_path: Path, others: list[Other]) -> None:
    other = Other(tmp_path)
    others.append(other)
    other.kill()
    until(lambda: started_at(other.server_pid) is None)
    with EmbeddedStore(tmp_path) as store:
        assert store.url == other.url


# supervision


class Events(queue.Queue[str]):
    def __call__(self, event: str) -> None:
        self.put(event)

    def next(self) -> str:
        return self.get(timeout=20)


@pytest.mark.fault("A1")
def test_a_server_that_was_killed_is_reported_and_comes_back_on_its_port_with_its_rows(
    tmp_path: Path,
) -> None:
    events = Events()
    with EmbeddedStore(tmp_path, first_pause_s=0.05, on_event=events) as store:
        store.watch()
        ask(store, "SET", "row", b"1")
        ask(store, "SAVE")
        for _ in range(2):
            url, pid = store.url, store.pid
            os.kill(pid, signal.SIGKILL)
            ended = f"the embedded feature store (pid {pid}) ended; it starts again in "
            assert events.next().startswith(ended)
            assert events.next() == f"the embedded feature store is back (pid {store.pid})"
            assert store.url == url
            assert store.pid != pid
            assert store.owned
            assert ask(store, "GET", "row") == b"1"
            assert StoreState.read(tmp_path) == StoreState(
                store.pid, port_of(store), started_at(store.pid) or ""
            )
    assert events.empty()


def test_a_killed_server_stays_away_for_the_pause(tmp_path: Path) -> None:
    events = Events()
    with EmbeddedStore(tmp_path, first_pause_s=0.4, on_event=events) as store:
        store.watch()
        os.kill(store.pid, signal.SIGKILL)
        events.next()
        died = time.monotonic()
        assert not store.alive
        events.next()
        assert time.monotonic() - died >= 0.4


def test_the_pauses_double_up_to_the_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    store = EmbeddedStore(tmp_path, first_pause_s=15.0, longest_pause_s=60.0)
    with store:
        store.watch()
        done = threading.Event()

        def wait(pause_s: float) -> bool:
            pauses.append(pause_s)
            if len(pauses) == 5:
                done.set()
                return True
            return False

        monkeypatch.setattr(store._stopping, "wait", wait)
        monkeypatch.setattr(embedded, "server_binary", lambda: tmp_path / "nowhere")
        os.kill(store.pid, signal.SIGKILL)
        assert done.wait(20)
    assert pauses == [15.0, 30.0, 60.0, 60.0, 60.0]


def test_an_end_is_reported_but_not_mended_until_it_is_watched(tmp_path: Path) -> None:
    events = Events()
    with EmbeddedStore(tmp_path, first_pause_s=0.01, on_event=events) as store:
        os.kill(store.pid, signal.SIGKILL)
        assert "ended" in events.next()
        with pytest.raises(queue.Empty):
            events.get(timeout=0.2)
        store.watch()
        assert "is back" in events.next()


def test_who_joined_takes_over_at_once_when_the_owner_stops_and_keeps_port_and_rows(
    tmp_path: Path, others: list[Other]
) -> None:
    other = Other(tmp_path)
    others.append(other)
    events = Events()
    with EmbeddedStore(tmp_path, first_pause_s=60.0, on_event=events) as store:
        assert not store.owned
        store.watch()
        ask(store, "SET", "row", b"1")
        ask(store, "SAVE")
        other.stop()
        assert "ended" in events.next()
        assert "is back" in events.next()
        assert store.owned
        assert store.url == other.url
        assert ask(store, "GET", "row") == b"1"


def test_who_joined_joins_the_next_server_too(tmp_path: Path, others: list[Other]) -> None:
    events = Events()
    first = Other(tmp_path)
    others.append(first)
    with EmbeddedStore(tmp_path, first_pause_s=1.0, on_event=events) as store:
        store.watch()
        first.kill()
        assert "ended" in events.next()
        second = Other(tmp_path)
        others.append(second)
        assert second.owned
        assert "is back" in events.next()
        assert (store.url, store.pid, store.owned) == (second.url, second.server_pid, False)


def test_stopping_does_not_wait_for_a_pause(tmp_path: Path) -> None:
    events = Events()
    store = EmbeddedStore(tmp_path, first_pause_s=3600.0, on_event=events)
    store.start()
    store.watch()
    os.kill(store.pid, signal.SIGKILL)
    events.next()
    started = time.monotonic()
    store.stop()
    assert time.monotonic() - started < 2.0


# what to start
