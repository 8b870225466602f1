"""Whatever stands in a settings file or in the environment gives settings, or one line a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankd_service.errors import StartupFailed
from rankd_service.settings import Settings
from rankd_service.settings_sources import load_settings
from tests.support.process import environment


def layers(open_: str, close: str, join: str) -> str:
    lines = [f"a0: &a0 {open_}k0: 1{close}" if open_ == "{" else "a0: &a0 [x]"]
    return "\n".join(
        [*lines, *(f"a{i}: &a{i} {join.format(', '.join([f'*a{i - 1}'] * 10))}" for i in range(1, 30))]
    )


FILES: dict[str, tuple[bytes, str]] = {
    "deep list": (b"server: " + b"[" * 5000, "nested too deeply"),
    "deep mapping": (b"{a: " * 5000, "nested too deeply"),
    "deep indent": ("\n".join(" " * i + "a:" for i in range(5000)).encode(), "nested too deeply"),
    "alias bomb": (
        layers("[", "]", "[{}]").encode() + b"\nmodels: {fusion: *a29}",
        "models.fusion: input should",
    ),
    "merge bomb": (layers("{", "}", "{{<<: [{}]}}").encode(), "`<<` is not read"),
    "time for a section": (b"2020-01-01: 1", "expected sections"),
    "time for a key": (b"server: {2020-01-01: 1}", "keys should be strings"),
    "number for a key": (b"server: {1: 1}", "keys should be strings"),
    "list for a key": (b"server: {[1]: 1}", "unhashable key"),
    "no time": (b"server: 2020-99-99", "month must be in 1..12"),
    "no base64": (b"server: !!binary xxx", "not valid YAML"),
    "tag that runs": (b"server: !!python/object/apply:os.system [x]", "not valid YAML"),
    "set": (b"server: !!set {a}", "server: input should"),
    "itself": (b"server: &a {port: *a}", "server.port: input should"),
    "itself in fusion": (b"models: {fusion: &a {x: *a}}", "models.fusion.x.x: input should"),
    "two documents": (b"server: {}\n---\nserver: {}", "single document"),
    "key twice": (b"server: {port: 1, port: 2}", "line 1: key 'port' is given twice"),
    "tab": (b"\tserver: 1", "not valid YAML"),
    "5,000 digits": (b"server: {port: " + b"9" * 5000 + b"}", "not valid YAML"),
    "beyond floats": (b"limits: {reserve_ms: 1" + b":59" * 500 + b".5}", "not valid YAML"),
    "infinite": (b"server: {port: .inf}", "finite number"),
    "for ever": (b"server: {drain_s: 1" + b"0" * 30 + b"}", "server.drain_s: input should be less"),
    "NUL": (b"server: \0", "not valid YAML"),
    "NUL in a path": (b'models: {repository: "a\\0b"}', "models.repository: expected a path"),
    "NUL in a host": (b'server: {host: "a\\0b"}', "server.host: expected a name"),
    "surrogate": (b'server: {host: "\\ud800"}', "server.host: expected a name"),
    "empty label": (b"server: {host: a..b}", "server.host: encoding with"),
    "not UTF-8": (bytes(range(256)), "byte 128 is not UTF-8"),
    "too long": (b"#" * (16 << 20) + b"\n", "more than 16 MiB"),
}


def refusal(config: Path | None = None) -> str | None:
    """What loading says, or None where it succeeds; anything but a refusal fails the test."""
    try:
        load_settings(config)
    except StartupFailed as error:
        return str(error)
    return None


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.mark.parametrize("what", list(FILES))
def test_a_file_of_nonsense_is_refused_in_short_lines(what: str, tmp_path: Path) -> None:
    content, says = FILES[what]
    config = tmp_path / "rankd.yaml"
    config.write_bytes(content)
    started = time.monotonic()
    with pytest.raises(StartupFailed) as refused:
        load_settings(config)
    assert says in str(refused.value)
    assert max(map(len, str(refused.value).splitlines())) < 400
    if what != "alias bomb":  # each of its anchors is an unknown section too
        assert len(str(refused.value).splitlines()) == 1
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("path", [Path("/"), Path("/dev/zero"), Path("a\0b"), Path("x" * 5000)], ids=repr)
def test_a_path_that_is_no_file_is_refused(path: Path) -> None:
    with pytest.raises(StartupFailed, match="cannot be read") as refused:
        load_settings(path)
    assert len(str(refused.value).splitlines()) == 1


ENVIRONMENTS: dict[str, tuple[str, str, str]] = {
    "a word for a section": ("RANKD_SERVER", "abc", "RANKD_SERVER: expected JSON"),
    "a list for a section": ("RANKD_REDIS", "[1]", "redis: input should"),
    "a list for a port": ("RANKD_SERVER__PORT", "[]", "server.port: input should"),
    "more below a port": ("RANKD_SERVER__PORT__X", "1", "server.port: input should"),
    "a word for a mapping": ("RANKD_MODELS__FUSION", "abc", "RANKD_MODELS__FUSION: expected JSON"),
    "a word for a weight": ("RANKD_MODELS__FUSION__A__B", "x", "models.fusion.a.b: input should"),
    "an infinite weight": ("RANKD_MODELS", '{"fusion": {"a": {"b": 1e999}}}', "fusion.a.b: input should"),
    "deep": ("RANKD_LIMITS", "[" * 100_000, "RANKD_LIMITS: expected JSON"),
    "deep below": ("RANKD_MODELS__FUSION", '{"a":' * 100_000, "RANKD_MODELS__FUSION: expected JSON"),
    "no name": ("RANKD__", "3", "RANKD__: unknown section"),
    "no key": ("RANKD_SERVER__", "3", "server.: unknown key"),
    "5,000 digits": ("RANKD_SERVER__PORT", "9" * 5000, "server.port: unable"),
    "not UTF-8": ("RANKD_SERVER__HOST", "\udcff", "server.host: expected a name"),
}


@pytest.mark.parametrize("what", list(ENVIRONMENTS))
def test_an_environment_of_nonsense_is_refused_in_one_line(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, value, says = ENVIRONMENTS[what]
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupFailed) as refused:
        load_settings()
    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("module", [("rankd_service",), ("rankd.cli", "serve")], ids=" ".join)
@pytest.mark.parametrize("what", ["a word for a section", "deep", "not UTF-8"])
def test_either_command_ends_with_2_and_one_line(module: tuple[str, ...], what: str) -> None:
    name, value, says = ENVIRONMENTS[what]
    ended = subprocess.run(
        [sys.executable, "-m", *module],
        env={os.fsencode(k): os.fsencode(v) for k, v in environment(**{name: value}).items()},
        capture_output=True,
        timeout=30,
        check=False,
    )
    (line,) = ended.stderr.decode().splitlines()
    assert ended.returncode == 2
    assert says in line


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)
SECTIONS = st.sampled_from(sorted(Settings.model_fields))
KEYS = st.sampled_from(
    sorted({key for field in Settings.model_fields.values() for key in field.annotation.model_fields})  # type: ignore[union-attr]
)


@given(TREES | st.dictionaries(SECTIONS, TREES | st.dictionaries(KEYS, TREES, max_size=4), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_tree_gives_settings_or_lines(tmp_path: Path, tree: Any) -> None:
    config = tmp_path / "rankd.yaml"
    config.write_text(yaml.safe_dump(tree, allow_unicode=False), encoding="utf-8")
    assert refusal(config) != ""


@given(
    SECTIONS,
    KEYS,
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
    | TREES.map(lambda t: json.dumps(t, default=str)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_value_of_the_environment_gives_settings_or_lines(section: str, key: str, value: str) -> None:
    for name in (f"RANKD_{section.upper()}", f"RANKD_{section.upper()}__{key.upper()}"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, value)
            assert refusal() != ""
