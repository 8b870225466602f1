from __future__ import annotations

import re
from pathlib import Path

import pytest

from rankd_service.errors import StartupFailed
from rankd_service.settings import Settings
from rankd_service.settings_sources import load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rankd.yaml"
    path.write_text(text)
    return path


def test_defaults_alone_are_enough() -> None:
    settings = load_settings()
    assert settings.server.host == "127.0.0.1"
    assert settings.limits.max_candidates == 2000


def test_command_line_beats_environment_beats_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(tmp_path, "server: {host: file, port: 1, keep_alive_s: 3}")
    monkeypatch.setenv("RANKD_SERVER__HOST", "environment")
    monkeypatch.setenv("RANKD_SERVER__PORT", "2")
    server = load_settings(config, server={"port": 4}).server
    assert (server.host, server.port, server.keep_alive_s) == ("environment", 4, 3)


def test_redis_url_names_the_store_unless_rankd_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://shared:1")
    url = load_settings().redis.url
    assert url is not None
    assert url.get_secret_value() == "redis://shared:1"
    monkeypatch.setenv("RANKD_REDIS__URL", "redis://own:2")
    url = load_settings().redis.url
    assert url is not None
    assert url.get_secret_value() == "redis://own:2"


def test_the_stores_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:opensesame@host:1")
    assert "opensesame" not in repr(load_settings())


def test_fusion_weights_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKD_MODELS__FUSION", '{"films": {"liked": 2}}')
    assert load_settings().models.fusion == {"films": {"liked": 2.0}}


def test_every_mistake_is_one_line_and_names_the_nearest_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(tmp_path, "server: {prot: 1, port: 99999}\nlimts: {}\nlimits: {max_id_bytes: x}")
    monkeypatch.setenv("RANKD_SEVER__PORT", "1")
    monkeypatch.setenv("RANKD_LIMITS__MAX_CANDIDTES", "1")
    with pytest.raises(StartupFailed) as failure:
        load_settings(config)
    lines = str(failure.value).splitlines()
    assert len(lines) == 6
    assert "RANKD_SEVER__PORT: unknown section; did you mean 'server'?" in lines
    assert "server.prot: unknown key; did you mean 'port'?" in lines
    assert "limts: unknown key; did you mean 'limits'?" in lines
    assert "limits.max_candidtes: unknown key; did you mean 'max_candidates'?" in lines


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("RANKD_SERVER_PORT", "did you mean RANKD_SERVER__PORT?"),
        ("RANKD_MAX_CANDIDATES", "did you mean RANKD_LIMITS__MAX_CANDIDATES?"),
        ("RANKD_REDIS_URL", "did you mean RANKD_REDIS__URL?"),
        ("RANKD_HOMES", "did you mean RANKD_HOME?"),
        ("RANKD_XYZ", "settings are RANKD_SECTION__KEY"),
    ],
)
def test_a_variable_that_sets_nothing_is_refused(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "tcp")
    with pytest.raises(StartupFailed, match=rf"^{name}: unknown variable; {re.escape(said)}[^\n]*$"):
        load_settings()


def test_the_command_lines_own_variables_are_nobodys_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKD_HOME", "home")
    monkeypatch.setenv("RANKD_DATA", "data")
    assert load_settings() == Settings()


def test_what_kubernetes_tells_of_services_named_after_us_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("RANKD", "RANKD_SERVER", "RANKD_REDIS"):
        for name, value in {
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "8080",
            "SERVICE_PORT_HTTP": "8080",
            "PORT": "tcp://10.0.0.1:8080",
            "PORT_8080_TCP": "tcp://10.0.0.1:8080",
            "PORT_8080_TCP_PROTO": "tcp",
            "PORT_8080_TCP_PORT": "8080",
            "PORT_8080_TCP_ADDR": "10.0.0.1",
        }.items():
            monkeypatch.setenv(f"{service}_{name}", value)
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: [1]", "server: input should be"),
        ("- 1", "expected sections"),
        ("a: [", "not valid YAML"),
        ("limits: {reserve_ms: 300, default_deadline_ms: 200}", "reserve_ms < default_deadline_ms"),
        ("limits: {max_deadline_ms: .nan}", "limits.max_deadline_ms"),
        ("features: {namespace: 'a:b'}", "features.namespace"),
    ],
    ids=[
        "section-no-mapping",
        "file-no-mapping",
        "no-yaml",
        "budgets-do-not-fit",
        "nan",
        "namespace-with-colon",
    ],
)
def test_g7_wrong_settings_are_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(StartupFailed, match="(?s)" + said.replace("<", "<")):
        load_settings(written(tmp_path, text))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(StartupFailed, match=r"nowhere\.yaml: cannot be read"):
        load_settings(Path("nowhere.yaml"))
