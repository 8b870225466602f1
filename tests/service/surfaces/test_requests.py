"""Rows C of the fault matrix: whatever is sent, the answer is right, in our form, and without its values."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.service.conftest import Service
from tests.service.surfaces.asking import (
    GOOD,
    SECRET,
    assert_refused,
    everything,
    items,
    raw,
    sent,
    takes_less_than,
    with_body,
)

MALFORMED = [
    pytest.param(b"", id="C1-empty"),
    pytest.param(b"{", id="C1-cut"),
    pytest.param(b'{"user": "42",}', id="C1-comma"),
    pytest.param(b"\xef\xbb\xbf{}", id="C1-byte-order-mark"),
    pytest.param(b'{"user": "\\ud800", "item_ids": ["1"]}', id="C3-lone-surrogate"),
    pytest.param(b'{"user": "\xff", "item_ids": ["1"]}', id="C3-invalid-utf8"),
    pytest.param(b"[" * 200_000, id="C4-deep-list"),
    pytest.param(b'{"user":' * 50_000, id="C4-deep-object"),
    pytest.param(b'{"user": ' + b"1" * 5000 + b', "item_ids": [1]}', id="C1-number-of-5000-digits"),
]


@pytest.mark.fault("C1")
@pytest.mark.fault("C3")
@pytest.mark.parametrize("body", MALFORMED)
def test_what_is_no_json_is_malformed(service: Service, body: bytes) -> None:
    assert_refused(sent(service, body), 400, "MALFORMED")


def test_c4_deep_nesting_is_refused_at_once(service: Service) -> None:
    assert takes_less_than(0.02, lambda: sent(service, b"[" * 200_000))


NOT_FINITE = [
    pytest.param(b'{"user": "42", "item_ids": ["1"], "deadline_ms": NaN}', "deadline_ms", id="C2-nan"),
    pytest.param(
        b'{"user": "42", "item_ids": ["1"], "deadline_ms": Infinity}', "deadline_ms", id="C2-infinity"
    ),
    pytest.param(b'{"user": "42", "item_ids": ["1"], "deadline_ms": 1e999}', "deadline_ms", id="C2-1e999"),
    pytest.param(
        b'{"user": "42", "item_ids": ["1"], "context": {"hour": NaN}}', "context.hour", id="C2-context"
    ),
    pytest.param(
        b'{"user": {"id": "42", "fields": {"age": -Infinity}}, "item_ids": ["1"]}',
        "user.fields.age",
        id="C2-user",
    ),
    pytest.param(
        b'{"user": "42", "items": [{"id": "1"}, {"id": "2", "fields": {"price": 1e999}}]}',
        "items.1.fields.price",
        id="C2-item",
    ),
    pytest.param(
        b'{"user": {"id": "42", "fields": {"recent": [NaN]}}, "item_ids": ["1"]}',
        "user.fields.recent",
        id="C2-list",
    ),
]


@pytest.mark.fault("C2")
@pytest.mark.parametrize(("body", "field"), NOT_FINITE)
def test_numbers_that_are_not_finite_are_refused_with_their_place(
    service: Service, body: bytes, field: str
) -> None:
    assert_refused(sent(service, body), 422, "NOT_FINITE", field)


SCHEMA = [
    pytest.param(
        with_body(user={"id": 1, "fields": {"age": 10**400}}), "user.fields.age", id="C2-400-digits"
    ),
    pytest.param(with_body(deadline_ms="NaN"), "deadline_ms", id="C2-nan-in-a-string"),
    pytest.param(b'{"user": NaN, "item_ids": ["1"]}', "user", id="C2-nan-as-id"),
    pytest.param(with_body(user="a\0b"), "user", id="C3-nul-in-user"),
    pytest.param(with_body(item_ids=["1", "a\0b"]), "item_ids.1", id="C3-nul-in-item"),
    pytest.param(with_body(id="a\0b"), "id", id="C3-nul-in-request-id"),
    pytest.param(b"NaN", None, id="C13-no-object"),
    pytest.param(b"[]", None, id="C13-list"),
    pytest.param(b"null", None, id="C13-null"),
    pytest.param(b"{}", "items", id="C13-candidates-missing"),
    pytest.param(b'{"item_ids": ["1"]}', "user", id="C13-user-missing"),
    pytest.param(with_body(usr=SECRET), "usr", id="C13-unknown-key"),
    pytest.param(with_body(**{SECRET: 1}), "?", id="C13-unknown-key-that-is-no-name"),
    pytest.param(with_body(user={"id": 1, "name": SECRET}), "user.name", id="C13-unknown-key-in-user"),
    pytest.param(items({"id": 1, "nme": SECRET}), "items.0.nme", id="C13-unknown-key-in-item"),
    pytest.param(items({"id": 1}, {}), "items.1.id", id="C13-item-without-id"),
    pytest.param(with_body(user=True), "user", id="C13-boolean-id"),
    pytest.param(with_body(user=1.5), "user", id="C13-fractional-id"),
    pytest.param(with_body(user=None), "user", id="C13-null-id"),
    pytest.param(with_body(user=[SECRET]), "user", id="C13-list-id"),
    pytest.param(with_body(user=""), "user", id="C13-empty-id"),
    pytest.param(with_body(item_ids=["1", {"id": SECRET}]), "item_ids.1", id="C13-object-id"),
    pytest.param(with_body(item_ids=SECRET), "item_ids", id="C13-text-for-list"),
    pytest.param(with_body(item_ids=["1", "x" * 129]), "item_ids.1", id="C13-id-of-129-bytes"),
    pytest.param(with_body(item_ids=["1", "é" * 65]), "item_ids.1", id="C13-id-of-130-bytes-in-65-letters"),
    pytest.param(with_body(user="x" * 129), "user", id="C13-user-of-129-bytes"),
    pytest.param(with_body(id="x" * 129), "id", id="C13-request-id-of-129"),
    pytest.param(with_body(id=1), "id", id="C13-request-id-of-wrong-type"),
    pytest.param(with_body(top_k=0), "top_k", id="C13-top-k-zero"),
    pytest.param(with_body(top_k=1.5), "top_k", id="C13-top-k-fraction"),
    pytest.param(with_body(top_k="3"), "top_k", id="C13-top-k-text"),
    pytest.param(with_body(sort=1), "sort", id="C13-sort-number"),
    pytest.param(with_body(timing="yes"), "timing", id="C13-timing-text"),
    pytest.param(with_body(context=[]), "context", id="C13-context-list"),
    pytest.param(with_body(context={"hour": {"x": SECRET}}), "context.hour", id="C13-nested-value"),
    pytest.param(with_body(context={"hours": 1}), "context.hours", id="C13-unknown-context"),
    pytest.param(
        with_body(user={"id": 1, "fields": {"agee": 1}}), "user.fields.agee", id="C13-unknown-user-field"
    ),
    pytest.param(
        with_body(user={"id": 1, "fields": {"age": SECRET}}), "user.fields.age", id="C13-wrong-type"
    ),
    pytest.param(
        with_body(user={"id": 1, "fields": {"age": 1e300}}), "user.fields.age", id="C2-beyond-float32"
    ),
    pytest.param(
        with_body(user={"id": 1, "fields": {"user_id": "x" * 1025}}),
        "user.fields.user_id",
        id="C13-long-text",
    ),
    pytest.param(items({"id": 1, "fields": {"price": SECRET}}), "items.0.fields.price", id="C13-item-field"),
    pytest.param(items({"id": 1, "fields": [1]}), "items.0.fields", id="C13-fields-list"),
    pytest.param(json.dumps({"user": "42"}).encode(), "items", id="C13-neither-items-nor-ids"),
    pytest.param(with_body(items=[{"id": "1"}]), "items", id="C13-both-items-and-ids"),
]


@pytest.mark.parametrize(("body", "field"), SCHEMA)
def test_what_does_not_fit_is_refused_with_its_place(
    service: Service, body: bytes, field: str | None
) -> None:
    assert_refused(sent(service, body), 422, "SCHEMA", field)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (with_body(dedline_ms=1), "did you mean 'deadline_ms'?"),
        (with_body(user={"id": 1, "field": {}}), "did you mean 'fields'?"),
        (with_body(context={"devise": "phone"}), "did you mean 'device'?"),
        (items({"id": 1, "fields": {"prise": 1}}), "did you mean 'price'?"),
    ],
)
def test_c13_a_misspelt_key_is_told_the_nearest_one(service: Service, body: bytes, hint: str) -> None:
    assert hint in sent(service, body).json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (with_body(deadline_ms=-5), "expected greater than 0, got -5"),
        (with_body(deadline_ms=SECRET), "expected a valid number, got a string"),
        (with_body(item_ids=SECRET), "expected a valid array, got a string"),
        (with_body(top_k=None), "expected a valid integer, got null"),
        (with_body(user=[SECRET]), "expected a string or an integer, got a list"),
        (with_body(id="x" * 129), "expected at most 128 characters"),
        (with_body(top_k=-(10**400)), "got a number"),
        (with_body(user=4915.25), "expected a string or an integer, got a number"),
        (with_body(sort={"by": SECRET}), "expected a valid boolean, got an object"),
    ],
)
def test_c13_what_was_given_is_told_by_its_kind(service: Service, body: bytes, message: str) -> None:
    assert message in sent(service, body).json()["error"]["message"]


def test_c10_too_many_candidates_are_refused_at_once_and_nothing_is_fetched(service: Service) -> None:
    body, reads = with_body(item_ids=list(range(100_000))), service.store.reads
    assert_refused(sent(service, body), 422, "TOO_MANY_CANDIDATES", "item_ids")
    assert takes_less_than(0.02, lambda: sent(service, body))
    assert service.store.reads == reads


def test_c10_the_limit_itself_is_allowed(service: Service) -> None:
    assert len(service.rank({**GOOD, "item_ids": list(range(2000))}).json()["items"]) == 2000
    assert_refused(
        service.rank({**GOOD, "item_ids": list(range(2001))}), 422, "TOO_MANY_CANDIDATES", "item_ids"
    )


@pytest.mark.parametrize("place", ["items", "item_ids"])
def test_c11_no_candidates_are_refused(service: Service, place: str) -> None:
    assert_refused(service.rank({"user": "42", place: []}), 422, "NO_CANDIDATES", place)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user": "42", "item_ids": ["1", "2", "1"]}, "item_ids.2"),
        ({"user": "42", "item_ids": ["1", 2, 1]}, "item_ids.2"),
        ({"user": "42", "items": [{"id": 7}, {"id": "7"}]}, "items.1.id"),
    ],
)
def test_c12_a_candidate_given_twice_is_refused(service: Service, body: object, field: str) -> None:
    assert_refused(service.rank(body), 422, "DUPLICATE", field)


@pytest.mark.parametrize("wish", [0, -1, -0.001, 1e-999])
def test_c14_a_deadline_that_is_over_before_it_starts_is_refused(service: Service, wish: float) -> None:
    assert_refused(service.rank({**GOOD, "deadline_ms": wish}), 422, "DEADLINE", "deadline_ms")


@pytest.mark.parametrize("wish", ["0", "-5", "nan", "inf", "1e3", "", "ten", "1_000", "5 5"])
def test_c14_a_deadline_header_is_a_plain_number_above_0(service: Service, wish: str) -> None:
    answer = sent(service, with_body(), {"x-deadline-ms": wish})
    assert_refused(answer, 422, "DEADLINE", "X-Deadline-Ms")


def test_c14_a_deadline_beyond_our_maximum_is_cut_and_said_so(service: Service) -> None:
    hour_ms = 3_600_000
    assert service.rank({**GOOD, "deadline_ms": hour_ms}).headers["x-deadline-ms"] == "10000"
    assert "x-deadline-ms" not in service.rank({**GOOD, "deadline_ms": 100}).headers


def test_c14_of_two_deadlines_the_shorter_wins(service: Service) -> None:
    late = {**GOOD, "deadline_ms": 0.0001}
    assert_refused(service.rank(late, **{"X-Deadline-Ms": "1000"}), 504, "DEADLINE_EXCEEDED")
    assert_refused(
        service.rank({**GOOD, "deadline_ms": 1000}, **{"X-Deadline-Ms": "0.0001"}), 504, "DEADLINE_EXCEEDED"
    )


def test_e5_a_deadline_that_is_over_costs_no_read(service: Service) -> None:
    reads = service.store.reads
    missed = service.metric("rankd_deadline_missed_total", model="films", stage="feature_fetch")
    assert service.rank({**GOOD, "deadline_ms": 0.0001}).status_code == 504
    assert service.store.reads == reads
    assert service.metric("rankd_deadline_missed_total", model="films", stage="feature_fetch") == missed + 1


PATHS = [
    pytest.param("/v1/rank/nosuch", "UNKNOWN_MODEL", id="C15-unknown-model"),
    pytest.param("/v1/rank/films/versions/2", "UNKNOWN_MODEL", id="C15-unknown-version"),
    pytest.param("/v1/rank/films/versions/01", "UNKNOWN_MODEL", id="C15-version-with-zero"),
    pytest.param("/v1/rank/films/versions/one", "UNKNOWN_MODEL", id="C15-version-no-number"),
    pytest.param("/v1/rank/%2e%2e", "UNKNOWN_MODEL", id="C16-dots"),
    pytest.param("/v1/rank/..%2f..%2fetc%2fpasswd", "NOT_FOUND", id="C16-slashes"),
    pytest.param("/v1/rank/films%00", "UNKNOWN_MODEL", id="C16-nul"),
    pytest.param("/v1/rank/" + "x" * 4096, "UNKNOWN_MODEL", id="C16-4-kb"),
    pytest.param("/v1/rank/films/versions/%2e%2e", "UNKNOWN_MODEL", id="C16-version-dots"),
]


@pytest.mark.fault("C16")
@pytest.mark.parametrize(("path", "code"), PATHS)
def test_only_what_is_served_has_a_name(service: Service, path: str, code: str) -> None:
    answer = service.client.send(
        service.client.build_request(
            "POST", httpx.URL(service.address).copy_with(raw_path=path.encode()), json=GOOD
        )
    )
    assert_refused(answer, 404, code)
    assert "x" * 65 not in answer.text


def test_a_version_that_is_served_answers_under_its_number(service: Service) -> None:
    answer = service.client.post("/v1/rank/films/versions/1", json=GOOD)
    assert answer.status_code == 200
    assert answer.headers["x-model-version"] == "1"


def test_c15_names_of_models_nobody_serves_add_no_series(service: Service) -> None:
    service.rank(GOOD, model="nosuch")
    before = len(service.client.get("/metrics").text.splitlines())
    names = [f"model-{number * 7919 % 1_000_003}" for number in range(10_000)]
    answers = pipelined(service, [f"/v1/rank/{name}" for name in names])
    assert answers.count(b"HTTP/1.1 404") == 10_000
    text = service.client.get("/metrics").text
    assert len(text.splitlines()) == before
    assert "model-" not in text


def pipelined(service: Service, paths: list[str]) -> bytes:
    """Post `{}` to many paths over one connection -> everything that came back."""
    heads = [
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        for path in paths
    ]
    heads[-1] += "Connection: close\r\n"
    answers = b""
    with raw(service, "Content-Length: 2", b"{}") as connection:
        for start in range(0, len(heads), 100):
            connection.sendall("".join(f"{head}\r\n{{}}" for head in heads[start : start + 100]).encode())
            if start % 1000 == 0:
                answers += connection.recv(1 << 20)
        return answers + everything(connection)


@pytest.mark.parametrize("given", ["a b", "x" * 129, "", "é", "<script>", "a\tb"])
def test_c19_a_request_id_unfit_for_a_log_line_is_replaced(service: Service, given: str) -> None:
    answer = service.client.post("/v1/rank/films", json=GOOD, headers={b"x-request-id": given.encode()})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 32


def test_a_sane_request_id_comes_back(service: Service) -> None:
    answer = service.rank(GOOD, **{"X-Request-Id": "abc-1.2:3/4"})
    assert answer.headers["x-request-id"] == "abc-1.2:3/4"
    assert answer.json()["id"] == "abc-1.2:3/4"
    assert service.rank({**GOOD, "id": "mine"}, **{"X-Request-Id": "abc"}).json()["id"] == "mine"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "NOT_FOUND"),
        ("GET", "/docs", 404, "NOT_FOUND"),
        ("GET", "/v1/rank/films", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/v1/models", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/models/nosuch", 404, "UNKNOWN_MODEL"),
        ("POST", "/v1/rank/", 404, "NOT_FOUND"),
        ("POST", "/v1/rank/films/", 404, "NOT_FOUND"),
        ("GET", "/v1/models/", 404, "NOT_FOUND"),
    ],
)
def test_the_frameworks_own_errors_have_our_form(
    service: Service, method: str, path: str, status: int, code: str
) -> None:
    assert_refused(service.client.request(method, path), status, code)


def test_refusals_are_counted_by_reason(service: Service) -> None:
    before = service.metric("rankd_rejected_total", model="films", reason="duplicate")
    service.rank({"user": "42", "item_ids": ["1", 1]})
    assert service.metric("rankd_rejected_total", model="films", reason="duplicate") == before + 1


def test_of_a_key_given_twice_the_last_one_counts(service: Service) -> None:
    answer = sent(service, b'{"user": "1", "user": "42", "item_ids": ["9"], "item_ids": ["1"]}').json()
    assert [item["id"] for item in answer["items"]] == ["1"]
    assert answer["feature_status"]["user"] == {"PRESENT": 1}
