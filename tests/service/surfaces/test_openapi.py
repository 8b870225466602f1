from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from rankd_service.domain import DegradeReason
from tests.service.conftest import Service


@pytest.fixture
def document(service: Service) -> dict[str, Any]:
    tree: dict[str, Any] = service.client.get("/openapi.json").json()
    return tree


def test_the_ranking_routes_are_documented_whole(document: dict[str, Any]) -> None:
    for path in ("/v1/rank/{model}", "/v1/rank/{model}/versions/{version}"):
        post = document["paths"][path]["post"]
        assert set(post["responses"]) == {"200", "400", "404", "413", "415", "422", "500", "503", "504"}
        assert post["requestBody"]["required"] is True
        for status, response in post["responses"].items():
            schema = response["content"]["application/json"]["schema"]
            assert schema["$ref"].endswith("/RankAnswer" if status == "200" else "/ErrorAnswer")
            assert "X-Request-Id" in response["headers"]


def test_every_reference_of_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    def references(tree: Any) -> list[str]:
        if isinstance(tree, dict):
            found = [tree["$ref"]] if isinstance(tree.get("$ref"), str) else []
            return found + [r for value in tree.values() for r in references(value)]
        return [r for value in tree for r in references(value)] if isinstance(tree, list) else []

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas


def test_limits_and_reasons_are_written_into_the_document(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["RankBody"]["properties"]["item_ids"]["maxItems"] == 2000
    assert set(schemas["DegradeReason"]["enum"]) == set(DegradeReason)
    assert schemas["RankBody"]["additionalProperties"] is False


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_the_document_allows_or_forbids_is_answered_as_documented(
    service: Service, mode: GenerationMode
) -> None:
    """Generates requests that fit the document, or do not, and checks every answer against it.

    That what fits is accepted is left out: which fields a model has, and that 1 and "1" are one id, is more
    than the document says.
    """
    api = schemathesis.openapi.from_url(f"{service.address}/openapi.json")
    operations = [found.ok() for found in api.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) == 8
    if mode is GenerationMode.NEGATIVE:
        operations = [operation for operation in operations if operation.body]
    for operation in operations:

        @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def conforms(case: Any) -> None:
            if len(case.path_parameters.get("model", "")) % 2:
                case.path_parameters["model"] = "films"  # so that not all of them end at an unknown model
            answer = case.call()
            if answer.status_code == 413:  # how long a body is, the document does not say
                assert len(answer.request.body or b"") > 1 << 20
                return
            case.validate_response(answer, excluded_checks=[positive_data_acceptance, not_a_server_error])
            assert answer.status_code in {200, 400, 404, 422, 504}  # a deadline may be as short as it likes

        conforms()
