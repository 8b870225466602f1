"""The HTTP surface: routes, and one form for every error, the framework's own included."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from rankd_service.domain import ModelCard
from rankd_service.errors import ServiceError
from rankd_service.pipeline import RankPipeline
from rankd_service.surfaces.errors import INTERNAL, Refusal, refusal, refusal_body
from rankd_service.surfaces.limits import request_id
from rankd_service.surfaces.rank import PATHS, RankEndpoint
from rankd_service.surfaces.schemas import ErrorAnswer, ModelAnswer, ModelsAnswer

__all__ = ["add_routes"]

_FRAMEWORK = {
    404: "there is no such path; GET /openapi.json lists all",
    405: "this path has other methods, see Allow",
}
_NO_MODEL: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "No such model."}}


def add_routes(app: FastAPI, pipeline: RankPipeline, endpoint: RankEndpoint) -> None:
    """Add the ranking routes, the list of models and the error handlers."""
    for path in PATHS:
        # `RankFirst` takes their requests; as routes they answer other methods with 405.
        app.router.routes.append(Route(path, endpoint, methods=["POST"], include_in_schema=False))

    @app.get("/v1/models", tags=["models"], summary="The models that are served")
    async def models() -> ModelsAnswer:
        return ModelsAnswer(models=[_model(card) for card in pipeline.cards()])

    @app.get("/v1/models/{model}", tags=["models"], summary="One model", responses=_NO_MODEL)
    async def model(model: str) -> ModelAnswer:
        return _model(pipeline.find(model, None).card)

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        message = _FRAMEWORK.get(error.status_code, "the request could not be read")
        code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "BAD_REQUEST")
        return _respond(
            request, Refusal(error.status_code, code, message, headers=tuple((error.headers or {}).items()))
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _respond(request, Refusal(422, "SCHEMA", "a parameter of the path or query is not valid"))

    @app.exception_handler(ServiceError)
    async def ours(request: Request, error: ServiceError) -> Response:
        return _respond(request, refusal(error))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return _respond(request, INTERNAL)


def _respond(request: Request, what: Refusal) -> Response:
    asked = request_id(dict(request.headers.raw))
    headers = {**dict(what.headers), "X-Request-Id": asked}
    return Response(refusal_body(what, asked), what.status, headers, "application/json")


def _model(card: ModelCard) -> ModelAnswer:
    return ModelAnswer(
        model=card.name,
        version=card.version,
        architecture=card.architecture,
        digest=card.digest,
        created_at=card.created_at,
        provider=card.provider,
        tasks=list(card.tasks),
        fusion=dict(card.fusion),
        user_fields=list(card.user_fields),
        item_fields=list(card.item_fields),
        context_fields=list(card.context_fields),
    )
