"""docs/api.md says what the service does: its examples are sent, its tables hold the code's own names."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from rankd_contract.packing import FeatureStatus
from rankd_contract.schema_file import parse_schema
from rankd_service import lifecycle
from rankd_service.app import build, open_store
from rankd_service.domain import DEGRADATIONS, DegradeReason, Rung, Stage
from rankd_service.errors import (
    DeadlineExceeded,
    RejectReason,
    StoreErrorKind,
    Unavailable,
)
from rankd_service.settings import Settings
from rankd_service.settings_sources import load_settings
from rankd_service.surfaces.errors import INTERNAL, STATUSES, refusal
from rankd_service.surfaces.request import ItemBody, RankBody, UserBody, parse_request
from rankd_service.surfaces.schemas import ModelAnswer, RankAnswer, RankedItem
from rankd_service.telemetry import LoadOutcome, Telemetry
from tests.support.bundles import SCHEMA_TEXT, echo, item_rows, publish_bundle, user_rows
from tests.support.memory_store import MemoryStore
from tests.support.server import running, until_ready

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^```json (\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
# Not of a refusal's reason: the framework's own, and those that are no refusals.
OTHER_CODES = {"NOT_FOUND", "METHOD_NOT_ALLOWED", "INTERNAL", "DEADLINE_EXCEEDED"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    repository, now_s, schema = tmp_path_factory.mktemp("models"), time.time(), parse_schema(SCHEMA_TEXT)
    publish_bundle(repository, "films", echo)
    store = MemoryStore(
        {**user_rows(schema, ["42"], now_s), **item_rows(schema, ["50", "181"], now_s, [1, 2])}
    )
    app = build(load_settings(models={"repository": repository}), store)
    with running(app) as address, httpx.Client(base_url=address, timeout=10) as client:
        until_ready(address)
        yield client


def section(title: str) -> str:
    """The text under a heading, up to the next one."""
    return re.split(r"\n##+ ", re.split(rf"\n##+ {title}\n", PAGE)[1])[0]


def rows(title: str, words: str) -> list[list[str]]:
    """The cells of the table under a heading whose first cell in the head begins with `words`."""
    table = section(title).split(f"\n| {words}")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line[1:-1].split(" | ")] for line in table.splitlines()[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([\w.\[\]]+)`", cell)


def firsts(title: str, words: str) -> list[str]:
    return list(chain.from_iterable(names(row[0]) for row in rows(title, words)))


def sent(client: httpx.Client, context: dict[str, Any]) -> httpx.Response:
    body = {"user": "42", "item_ids": ["50", "181"], "context": context}
    return client.post("/v1/rank/films", json=body)


def test_the_example_request_is_read_whole() -> None:
    parsed = parse_request(EXAMPLES["request"].encode(), "-", Settings().limits)
    assert parsed.deadline_ms == 100
    assert parsed.timing
    assert len(parsed.request.candidates) == 3


def test_the_example_is_answered_in_the_form_of_the_example(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/rank/films", content=EXAMPLES["request"], headers={"content-type": "application/json"}
    ).json()
    example = json.loads(EXAMPLES["answer"])
    assert list(answer) == list(example)
    known = {key for item in example["items"] for key in item}
    assert {key for item in answer["items"] for key in item} <= known
    assert list(answer["timing"]) == list(example["timing"])
    for key in ("id", "model", "version", "degraded", "feature_status"):
        assert answer[key] == example[key], key


def test_the_example_of_an_error_is_what_is_answered(client: httpx.Client) -> None:
    answer, example = sent(client, {"devize": "x"}), json.loads(EXAMPLES["error"])
    assert answer.status_code == 422
    assert {**answer.json()["error"], "request_id": "-"} == {**example["error"], "request_id": "-"}


@pytest.mark.parametrize("context", [{"hour": 14}, {"timestamp": None}, {"timestamp": 1764061200}])
def test_context_is_taken_as_the_page_says(client: httpx.Client, context: dict[str, Any]) -> None:
    assert sent(client, context).status_code == 200


@pytest.mark.parametrize(
    "context",
    [{"timestamp": 1.5}, {"timestamp": 1764061200000}, {"hour": "14"}, {"device": 3}, {"source": 1}],
)
def test_context_is_refused_as_the_page_says(client: httpx.Client, context: dict[str, Any]) -> None:
    assert sent(client, context).json()["error"]["code"] == "SCHEMA"


def test_every_key_of_body_and_answers_is_on_the_page(client: httpx.Client) -> None:
    assert sorted(firsts("Body", "key")) == sorted(RankBody.__annotations__)
    assert UserBody.__annotations__.keys() == ItemBody.__annotations__.keys() == {"id", "fields"}
    answer = firsts("Answer", "key")
    assert sorted(k for k in answer if "[" not in k) == sorted(RankAnswer.model_fields)
    assert sorted(k for k in answer if "[" in k) == sorted(f"items[].{k}" for k in RankedItem.model_fields)
    assert sorted(firsts("Models", "key")) == sorted(ModelAnswer.model_fields)
    assert set(client.get("/readyz").json()) <= set(names(section("Probes")))


def test_every_stage_status_and_rung_is_on_the_page_in_its_order() -> None:
    assert firsts("Stages", "stage") == [s.value for s in Stage]
    statuses = rows("Statuses of feature rows", "status")
    assert [(names(row[0]), row[1]) for row in statuses] == [([s.name], str(s.value)) for s in FeatureStatus]
    assert firsts("Degradation", "rung") == [r.value for r in Rung]


def test_every_reason_of_a_degradation_is_on_the_page_with_its_stage_and_rungs() -> None:
    said = {names(r[0])[0]: (names(r[1]), set(names(r[2]))) for r in rows("Degradation", "reason")}
    assert said == {
        reason.value: ([DEGRADATIONS[reason][0].value], {rung.value for rung in DEGRADATIONS[reason][1]})
        for reason in DegradeReason
    }


def test_every_code_is_on_the_page_with_its_status() -> None:
    said = [(int(row[0]), names(row[1])[0], row[3]) for row in rows("Errors", "status")]
    assert {code for _, code, _ in said} == {reason.name for reason in RejectReason} | OTHER_CODES
    assert {status for status, _, _ in said} >= set(STATUSES.values())
    assert (INTERNAL.status, INTERNAL.code, "no") in said
    late = refusal(DeadlineExceeded("late"))
    assert (late.status, late.code, "no") in said
    for reason in ("NOT_READY", "DRAINING", "QUEUE_FULL", "DEADLINE_INFEASIBLE"):
        full = refusal(Unavailable(RejectReason[reason], "full"))
        assert full.retryable
        assert (full.status, full.code, "yes") in said


REFUSED: dict[str, dict[str, Any]] = {
    "MALFORMED": {"content": "{"},
    "MEDIA_TYPE": {"headers": {"content-type": "text/plain"}},
    "ENCODING": {"headers": {"content-encoding": "gzip"}},
    "TOO_LARGE": {"content": " " * (1 << 21)},
    "SCHEMA": {"content": '{"usr": 1}'},
    "NOT_FINITE": {"content": '{"user": 1, "item_ids": [1], "context": {"hour": NaN}}'},
    "NO_CANDIDATES": {"content": '{"user": 1, "item_ids": []}'},
    "TOO_MANY_CANDIDATES": {"content": json.dumps({"user": 1, "item_ids": list(range(2001))})},
    "DUPLICATE": {"content": '{"user": 1, "item_ids": [1, "1"]}'},
    "DEADLINE": {"headers": {"x-deadline-ms": "soon"}},
    "DEADLINE_EXCEEDED": {"headers": {"x-deadline-ms": "0.001"}},
    "UNKNOWN_MODEL": {"url": "/v1/rank/books"},
    "NOT_FOUND": {"url": "/v1/rang"},
    "METHOD_NOT_ALLOWED": {"url": "/livez"},
    "HEADERS": {"headers": {"x-long": "x" * (65 << 10)}},
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_refusal_has_the_status_that_the_page_says(client: httpx.Client, code: str) -> None:
    json_body = {"content-type": "application/json"}
    asked = {"url": "/v1/rank/films", "content": '{"user": 1, "item_ids": [1]}', **REFUSED[code]}
    answer = client.post(**{**asked, "headers": {**json_body, **asked.get("headers", {})}})
    said = {names(row[1])[0]: (int(row[0]), row[3]) for row in rows("Errors", "status")}
    error = answer.json()["error"]
    assert error["code"] == code
    assert (answer.status_code, "yes" if error["retryable"] else "no") == said[code]


def test_every_route_is_on_the_page(client: httpx.Client) -> None:
    served = set(client.get("/openapi.json").json()["paths"]) | {"/openapi.json"}
    listed = PAGE.split("\n## ")[0].split("|---|---|")[1]
    assert set(re.findall(r"`(?:GET |POST )?(/[\w/{}.]+)`", listed)) == served


def test_every_header_and_probe_is_on_the_page(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    rank = paths["/v1/rank/{model}"]["post"]
    asked = {parameter["name"] for parameter in rank["parameters"] if parameter["in"] == "header"}
    answered = set(chain.from_iterable(answer.get("headers", {}) for answer in rank["responses"].values()))
    assert header_names("header of the request") == asked
    assert header_names("header of the answer") == answered
    probes = {path for path, route in paths.items() if route.get("get", {}).get("tags") == ["health"]}
    assert {row[0].strip("`") for row in rows("Probes", "path")} == probes - {"/metrics"}


def header_names(words: str) -> set[str]:
    return {row[0].strip("`") for row in rows("Headers", words)}


def test_every_state_kind_and_outcome_is_on_the_page() -> None:
    assert {state.value for state in lifecycle.State} <= set(names(section("Probes")))
    assert {kind.value for kind in StoreErrorKind} <= set(names(section("Metrics")))
    assert {outcome.value for outcome in LoadOutcome} <= set(names(section("Metrics")))


def test_every_metric_is_on_the_page_with_its_type_and_labels(client: httpx.Client) -> None:
    said = {names(row[0])[0]: (row[1], tuple(names(row[2]))) for row in rows("Metrics", "family")}
    settings, telemetry = Settings(), Telemetry(CollectorRegistry())
    open_store("redis://127.0.0.1:1", settings.redis, telemetry)  # asks for nothing, so connects to nothing
    declared = {
        metric._name + ("_total" if metric._type == "counter" else ""): (metric._type, metric._labelnames)
        for metric in telemetry.registry._collector_to_names
        if isinstance(metric, MetricWrapperBase)
    }
    assert said.items() >= declared.items()
    scraped = re.findall(r"^# TYPE (rankd_\w+) (\w+)$", client.get("/metrics").text, re.MULTILINE)
    families = {name: kind for name, kind in scraped if not name.endswith("_created")}
    assert {name: kind for name, (kind, _) in said.items()} == families | {
        name: kind for name, (kind, _) in declared.items()
    }
