"""INFNet's graph is INFNet: both versions, several histories or none, some of them empty."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankd_contract.schema import FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_training.models.infnet import INFNet
from rankd_training.models.infnet_config import INFNetConfig
from tests.export.agreement import assert_agrees, traced
from tests.export.requests import random_request

HISTORIES = """
rankd_schema: 1
name: histories
views:
  - name: who
    entity: user
    key: id
    fields:
      - {name: liked, kind: sequence, shares: sku, max_length: 6}
      - {name: income, kind: numeric, dtype: float32, default: 0, transform: log1p}
      - {name: skipped, kind: sequence, shares: sku, max_length: 4}
      - {name: city, kind: categorical, dtype: string, hash: 50}
  - name: what
    entity: item
    key: id
    fields:
      - {name: sku, kind: categorical, dtype: int64, hash: 100}
      - {name: tags, kind: multi_value, dtype: string, hash: 9, max_length: 3}
      - {name: price, kind: numeric, dtype: float32, default: 1}
  - {name: now, entity: context, fields: [{name: hour, kind: categorical, source: at, derive: hour_of_day}]}
tasks: [{name: click}, {name: buy}]
"""
NO_HISTORY = "\n".join(line for line in HISTORIES.splitlines() if "sequence" not in line)
LIKED, SKIPPED = slice(0, 6), slice(6, 10)


@pytest.mark.parametrize(
    "text", [HISTORIES, pytest.param(NO_HISTORY, marks=pytest.mark.slow)], ids=["histories", "no history"]
)
@pytest.mark.parametrize("variant", [pytest.param("v1", marks=pytest.mark.slow), "v2"])
def test_graph_and_model_agree_at_every_size(variant: str, text: str) -> None:
    schema = parse_schema(text)
    torch.manual_seed(0)
    config = INFNetConfig(variant=variant, embedding_std=0.5)  # type: ignore[arg-type]  # one of the two
    model = INFNet(schema, config).eval()
    more = empty_histories(schema) if text is HISTORIES else []
    assert_agrees(model, traced(model, schema), schema, more)


def empty_histories(schema: FeatureSchema) -> list[dict[str, np.ndarray]]:
    """Requests of users of whom one, another or nothing of both histories is known."""
    requests = []
    for empty in ([LIKED], [SKIPPED], [LIKED, SKIPPED]):
        for n, users in ((1, 1), (7, 3), (100, 1)):
            request = random_request(schema, n, users, seed=n)
            for columns in empty:
                request["in_user_ids"][0, columns] = 0
            requests.append(request)
    return requests
