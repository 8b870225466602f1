from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankd_contract.packing import FeatureStatus
from rankd_contract.schema import Entity
from rankd_service.domain import (
    Candidates,
    Degradation,
    DegradeReason,
    ModelCard,
    RankRequest,
    Rung,
    Slate,
    Stage,
    User,
)
from rankd_service.errors import StoreErrorKind
from rankd_service.surfaces.answer import encode_slate
from rankd_service.surfaces.schemas import RankAnswer
from tests.service.conftest import ITEMS, Service

CARD = ModelCard(
    name="films",
    version=3,
    architecture="echo",
    digest="d",
    created_at="",
    provider="",
    tasks=("liked", 'so "so"'),
    fusion={},
    user_fields=(),
    item_fields=(),
    context_fields=(),
)
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12) | st.text(
    '",\\', min_size=1, max_size=6
)


@given(st.lists(IDS, min_size=1, max_size=20, unique=True), st.integers(0, 2**32 - 1))
def test_the_written_answer_says_what_the_slate_says(ids: list[str], seed: int) -> None:
    rng, n = np.random.default_rng(seed), len(ids)
    scores = rng.random((n, 2), np.float32)
    scores[rng.random(n) < 0.2] = np.nan
    order = rng.permutation(n)[: rng.integers(1, n + 1)]
    statuses = rng.integers(0, len(FeatureStatus), n).astype(np.uint8)
    scored = int(rng.choice([0, n // 2, n]))
    slate = Slate(
        model=CARD,
        order=order,
        ranks=np.arange(1, len(order) + 1),
        scores=scores[order, 0],
        task_scores_KT=scores[order],
        statuses={Entity.USER: np.array([2], np.uint8), Entity.ITEM: statuses},
        degraded=(Degradation(DegradeReason.SCORE_NOT_FINITE, Rung.LAST_PLACE, 1),),
        scored=scored,
    )
    request = RankRequest("r", User("u"), Candidates(ids))
    answer = json.loads(encode_slate(request, slate, 0.0015, {Stage.INFER: 0.0012346}))
    RankAnswer.model_validate(answer, extra="forbid")
    assert (answer["id"], answer["model"], answer["version"], answer["took_ms"]) == ("r", "films", 3, 1.5)
    assert answer["timing"] == {"infer": 1.235}
    assert answer["feature_status"]["user"] == {"NOT_FOUND": 1}
    assert sum(answer["feature_status"]["item"].values()) == n
    for item, at, place in zip(answer["items"], order, slate.ranks, strict=True):
        assert item["id"] == ids[at]
        assert item["rank"] == place
        assert item.get("scored", True) is bool(at < scored)
        assert item.get("status", "PRESENT") == FeatureStatus(statuses[at]).name
        given_back = [item["score"], *item["scores"].values()]
        expected = [scores[at, 0], *scores[at]]
        for got, want in zip(given_back, expected, strict=True):
            assert (got is None and np.isnan(want)) or np.float32(got) == want
        assert list(item["scores"]) == list(CARD.tasks)


def test_an_answer_names_its_model_version_and_stages(service: Service) -> None:
    answer = service.rank({"user": "42", "item_ids": ITEMS, "timing": True}, model="price")
    body = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert (body["model"], body["version"], answer.headers["x-model-version"]) == ("price", 1, "1")
    stages = ["admission", "parse", "feature_fetch", "assemble", "infer", "postprocess"]
    assert list(body["timing"]) == stages
    timed = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert list(timed) == [s.value for s in Stage]
    assert 0 < sum(body["timing"].values()) <= body["took_ms"] + 0.003  # each is rounded
    assert body["degraded"] == []
    assert "x-degraded" not in answer.headers
    assert body["feature_status"] == {"user": {"PRESENT": 1}, "item": {"PRESENT": 50}}
    scores = [item["score"] for item in body["items"]]
    assert scores == sorted(scores, reverse=True)
    assert [item["rank"] for item in body["items"]] == list(range(1, 51))
    assert all("status" not in item for item in body["items"])
    RankAnswer.model_validate(body, extra="forbid")


def test_timing_is_told_only_when_asked_for(service: Service) -> None:
    assert "timing" not in service.rank({"user": "42", "item_ids": ITEMS}).json()


def test_the_ranking_score_is_the_weighted_mean_of_the_tasks(service: Service) -> None:
    for item in service.rank({"user": "42", "item_ids": ITEMS}).json()["items"]:
        mean = (item["scores"]["liked"] + 3 * item["scores"]["loved"]) / 4
        assert item["score"] == pytest.approx(mean, rel=1e-6)


def test_a_candidate_whose_row_is_missing_says_so(service: Service) -> None:
    body = service.rank({"user": "42", "item_ids": ["1", "nosuch", "2"]}, model="price").json()
    assert {item["id"]: item.get("status") for item in body["items"]} == {
        "1": None,
        "2": None,
        "nosuch": "NOT_FOUND",
    }
    assert body["feature_status"]["item"] == {"PRESENT": 2, "NOT_FOUND": 1}


def test_ids_may_be_integers_and_are_answered_as_strings(service: Service) -> None:
    as_numbers = service.rank({"user": 42, "item_ids": [1, 2, 3]}).json()["items"]
    as_texts = service.rank({"user": {"id": "42"}, "items": [{"id": "1"}, {"id": 2}, {"id": "3"}]}).json()[
        "items"
    ]
    assert as_numbers == as_texts
    assert {item["id"] for item in as_numbers} == {"1", "2", "3"}


def test_top_k_and_sort_shape_the_answer(service: Service) -> None:
    whole = service.rank({"user": "42", "item_ids": ITEMS}, model="price").json()["items"]
    best = service.rank({"user": "42", "item_ids": ITEMS, "top_k": 3}, model="price").json()["items"]
    assert best == whole[:3]
    unsorted = service.rank({"user": "42", "item_ids": ITEMS, "sort": False}, model="price").json()["items"]
    assert [item["id"] for item in unsorted] == ITEMS
    assert sorted(unsorted, key=lambda item: int(item["rank"])) == whole


def test_request_time_fields_change_the_score(service: Service) -> None:
    items = [{"id": "1"}, {"id": "2", "fields": {"price": 0.99}}]
    best = service.rank({"user": "42", "items": items}, model="price").json()["items"][0]
    assert (best["id"], best["score"]) == ("2", pytest.approx(0.99, rel=1e-6))


def test_p4_a_store_that_is_down_degrades_the_answer_and_the_headers_say_so(service: Service) -> None:
    service.store.failure = StoreErrorKind.REFUSED
    answer = service.rank({"user": "42", "item_ids": ITEMS})
    assert answer.status_code == 200
    assert answer.headers["x-degraded"] == "store_down"
    assert answer.json()["degraded"] == [
        {"stage": "feature_fetch", "rung": "default_row", "reason": "store_down", "affected": 50}
    ]
    assert {item["status"] for item in answer.json()["items"]} == {"DEFAULTED"}


def test_g6_a_store_that_is_down_leaves_the_service_ready_and_readyz_says_it(service: Service) -> None:
    up = service.client.get("/readyz")
    assert (up.status_code, up.json()["store"], up.json()["missing"]) == (200, "up", [])
    service.store.failure = StoreErrorKind.REFUSED
    down = service.client.get("/readyz")
    assert (down.status_code, down.json()["store"]) == (200, "down")
    assert down.json()["missing"] == ["store: not answering; answers are degraded"]


def test_models_say_what_they_are(service: Service) -> None:
    models = service.client.get("/v1/models").json()["models"]
    assert [m["model"] for m in models] == ["films", "price"]
    one = service.client.get("/v1/models/films").json()
    assert one == models[0]
    assert one["tasks"] == ["liked", "loved"]
    assert one["context_fields"] == ["hour", "device"]
    assert one["provider"] == "CPUExecutionProvider"


def test_metrics_are_exposed_in_the_form_asked_for(service: Service) -> None:
    service.rank({"user": "42", "item_ids": ITEMS})
    plain = service.client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert "rankd_model_info{" in plain.text
    assert 'le="0.0005"' in plain.text
    assert "process_resident_memory_bytes" in plain.text
    openmetrics = service.client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert openmetrics.text.endswith("# EOF\n")
    for odd in ("application/openmetrics-text;version=xx", "text/plain; version=zz"):
        assert service.client.get("/metrics", headers={"accept": odd}).status_code == 200


def test_every_stage_of_a_served_model_is_measured(service: Service) -> None:
    name = "rankd_stage_duration_seconds_count"
    before = {s: service.metric(name, model="films", stage=s.value) for s in Stage}
    total = service.metric("rankd_request_duration_seconds_count", model="films", transport="http")
    service.rank({"user": "42", "item_ids": ITEMS})
    assert {s: service.metric(name, model="films", stage=s.value) for s in Stage} == {
        s: count + 1 for s, count in before.items()
    }
    assert (
        service.metric("rankd_request_duration_seconds_count", model="films", transport="http") == total + 1
    )
