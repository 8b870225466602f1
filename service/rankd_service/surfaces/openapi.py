"""The OpenAPI document: the framework's own part, and the ranking routes, which the framework never sees."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from rankd_service.domain import Partition
from rankd_service.settings import LimitSettings
from rankd_service.surfaces.request import RankBody
from rankd_service.surfaces.schemas import ErrorAnswer, RankAnswer

__all__ = ["document"]

_REF = "#/components/schemas/{model}"
_REFUSALS = {
    "400": "The body is not valid JSON.",
    "404": "No such model, or no such version of it.",
    "413": "The body is longer than allowed.",
    "415": "The body is not JSON, or compressed.",
    "422": "Well-formed, but not allowed; `field` says where.",
    "500": "A bug of ours; report it with the request id.",
    "503": "Not ready, draining, or too busy to answer in time; see Retry-After.",
    "504": "The deadline passed before there was an answer.",
}
_TEXT = {"schema": {"type": "string"}}


def document(app: FastAPI, limits: LimitSettings) -> None:
    """Make `app.openapi()` describe the ranking routes too."""
    framework = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            tree = framework()
            tree["paths"].update(_paths())
            tree.setdefault("components", {}).setdefault("schemas", {}).update(_schemas(limits))
            app.openapi_schema = tree
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schemas(limits: LimitSettings) -> dict[str, Any]:
    answers: list[type[BaseModel]] = [RankAnswer, ErrorAnswer]
    _, tree = models_json_schema([(m, "serialization") for m in answers], ref_template=_REF)
    schemas: dict[str, Any] = tree["$defs"]
    body = TypeAdapter(RankBody).json_schema(ref_template=_REF)
    schemas.update(body.pop("$defs"))
    for place in ("items", "item_ids"):
        body["properties"][place] |= {"minItems": 1, "maxItems": limits.max_candidates, "uniqueItems": True}
    body["oneOf"] = [{"required": ["items"]}, {"required": ["item_ids"]}]
    schemas["RankBody"] = body
    for closed in ("RankBody", "UserBody", "ItemBody"):
        schemas[closed]["additionalProperties"] = False  # `parse_request` refuses unknown keys itself
    return schemas


def _paths() -> dict[str, Any]:
    one = _operation("Rank candidates for a user", "rank", ["model"])
    version = _operation("Rank with one version of a model", "rank_version", ["model", "version"])
    return {"/v1/rank/{model}": {"post": one}, "/v1/rank/{model}/versions/{version}": {"post": version}}


def _operation(summary: str, operation: str, path: list[str]) -> dict[str, Any]:
    wish = {"type": "number", "minimum": 0.001, "maximum": 999_999_999}
    headers = [
        {"name": "X-Request-Id", "in": "header", "required": False, **_TEXT, "description": "Comes back."},
        {
            "name": "X-Deadline-Ms",
            "in": "header",
            "required": False,
            "schema": wish,
            "description": "As `deadline_ms`; known before the body is read, so it also bounds the queue.",
        },
        {
            "name": "X-Priority",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "enum": list(Partition), "default": Partition.LIVE},
            "description": "`batch` where nobody waits for the answer: live requests go first.",
        },
    ]
    answer_headers = {
        "X-Request-Id": {
            **_TEXT,
            "description": "The caller's, where it is fit for a log line, else a new one.",
        },
        "X-Model-Version": {**_TEXT, "description": "Version that computed all scores."},
        "X-Degraded": {**_TEXT, "description": "Reasons, where the answer is degraded."},
        "X-Deadline-Ms": {**_TEXT, "description": "Our maximum, where the deadline asked for was cut to it."},
        "Server-Timing": {**_TEXT, "description": "Milliseconds of each stage."},
    }
    return {
        "tags": ["rank"],
        "summary": summary,
        "operationId": operation,
        "parameters": [{"name": n, "in": "path", "required": True, **_TEXT} for n in path] + headers,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("RankBody")}}},
        "responses": {
            "200": {
                "description": "The slate; `degraded` says what is not as it should be.",
                "headers": answer_headers,
                "content": {"application/json": {"schema": _ref("RankAnswer")}},
            },
            **{status: _refusal(status, text) for status, text in _REFUSALS.items()},
        },
    }


def _refusal(status: str, description: str) -> dict[str, Any]:
    headers = {"X-Request-Id": _TEXT}
    if status == "503":
        headers["Retry-After"] = {"schema": {"type": "string"}}
    return {
        "description": description,
        "headers": headers,
        "content": {"application/json": {"schema": _ref("ErrorAnswer")}},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}
