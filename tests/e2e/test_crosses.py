"""A schema with a cross, trained, exported and served from rows that were stored before there was a cross."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
import torch
from numpy.typing import NDArray

from rankd_contract.columns import Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import tensors
from rankd_export.exporter import export_run
from rankd_service.features.embedded import EmbeddedStore
from rankd_training.models.registry import RankingModel
from rankd_training.recipes import ctr
from rankd_training.runs import checkpoint
from rankd_training.settings import TrainSettings
from tests.support.bundles import rows
from tests.support.process import service_process

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

PLAIN = """
rankd_schema: 1
name: shops
views:
  - name: people
    entity: user
    key: user_id
    fields:
      - {name: user_id, kind: categorical, dtype: string, hash: 500}
      - {name: city, kind: categorical, dtype: string, hash: 50}
  - name: shops
    entity: item
    key: shop_id
    fields:
      - {name: shop_id, kind: categorical, dtype: string, hash: 500}
      - {name: kind, kind: categorical, dtype: string, vocabulary: [food, books]}
  - name: request
    entity: context
    fields:
      - {name: device, kind: categorical, dtype: string, vocabulary: [phone, desktop]}
tasks: [{name: visit}]
"""
CROSSES = """
crosses:
  - {name: user_shop, of: [user_id, shop_id], rows: 5000}
  - {name: shop_device, of: [device, shop_id], rows: 1000}
  - {name: city_device, of: [city, device], rows: 1000}
"""
USERS, SHOPS, NUM_ROWS = [f"u{i}" for i in range(40)], [f"s{i}" for i in range(60)], 4000
PEOPLE = {"user_id": [*USERS], "city": [f"c{i % 7}" for i in range(40)]}
PLACES = {"shop_id": [*SHOPS], "kind": [("food", "books", "toys")[i % 3] for i in range(60)]}


def examples() -> pa.Table:
    rng = np.random.default_rng(5)
    user_n, shop_n, phone_n = (rng.integers(k, size=NUM_ROWS) for k in (40, 60, 2))
    return pa.table(
        {
            **{name: np.array(column)[user_n] for name, column in PEOPLE.items()},
            **{name: np.array(column)[shop_n] for name, column in PLACES.items()},
            "device": np.array(["phone", "desktop"])[phone_n],
            "visit": (rng.random((40, 60)) < 0.5)[user_n, shop_n],
            "split": np.resize(["train"] * 4 + ["valid", "test"], NUM_ROWS),
        }
    )


def block(schema: FeatureSchema, entity: Entity, columns: dict[str, list[str]]) -> Block:
    encoder = Encoder(schema, entity)
    typed = {
        at.field.source: Column.from_python(columns[at.field.source], at.field)
        for at in encoder.layout.fields
    }
    return encoder.encode(typed, len(next(iter(columns.values()))))


def model_scores(
    model: RankingModel, schema: FeatureSchema, user: int, shops: list[int], device: str
) -> NDArray[np.float32]:
    """What the model gives for a user and shops, by the columns that rows and examples were made of."""
    inputs = tensors(
        {
            Entity.USER: block(schema, Entity.USER, {k: [v[user]] for k, v in PEOPLE.items()}),
            Entity.ITEM: block(schema, Entity.ITEM, {k: [v[i] for i in shops] for k, v in PLACES.items()}),
            Entity.CONTEXT: block(schema, Entity.CONTEXT, {"device": [device]}),
        },
        np.zeros(len(shops), np.int64),
    )
    with torch.no_grad():
        logits = model({name: torch.from_numpy(array) for name, array in inputs.items()})
    score_N: NDArray[np.float32] = torch.sigmoid(logits)[:, 0].numpy()
    return score_N


def test_a_service_scores_crosses_as_the_model_does_from_rows_without_them(tmp_path: Path) -> None:
    pq.write_table(examples(), tmp_path / "examples.parquet")
    (tmp_path / "schema.yaml").write_text(PLAIN + CROSSES, encoding="utf-8")
    schema = parse_schema(PLAIN + CROSSES)
    settings = TrainSettings(
        tmp_path / "examples.parquet",
        tmp_path / "schema.yaml",
        tmp_path / "run",
        epochs=2,
        batch_size=128,
        learning_rate=1e-2,
        model_config={"embedding_std": 0.3},
    )
    ctr.train(settings)
    model = checkpoint.load(tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "models", name="shops")
    shops = [3, 59, 17, 0, 31]
    body = {"user": "u12", "item_ids": [SHOPS[i] for i in shops], "sort": False, "deadline_ms": 5000}
    configuration: dict[str, dict[str, object]] = {
        "models": {"repository": str(tmp_path / "models")},
        "features": {"fetch_cap_ms": 4000},  # the machine may be busy with other tests
    }
    with (
        EmbeddedStore.attach_or_start(tmp_path / "store", first_pause_s=0.1) as store,
        redis.Redis.from_url(store.url) as client,
        service_process(tmp_path, configuration, REDIS_URL=store.url) as service,
        httpx.Client(base_url=service.address, timeout=10) as asker,
    ):
        before, today = parse_schema(PLAIN), time.time()
        client.mset({**rows(before, "people", PEOPLE, today), **rows(before, "shops", PLACES, today)})
        for device in ("phone", "desktop"):
            answer = asker.post("/v1/rank/shops", json={**body, "context": {"device": device}}).json()
            assert answer["feature_status"] == {"user": {"PRESENT": 1}, "item": {"PRESENT": 5}}
            found = [item["score"] for item in answer["items"]]
            expected = model_scores(model, schema, 12, shops, device)
            assert found == pytest.approx(expected, abs=1e-5)
        stranger = asker.post("/v1/rank/shops", json={**body, "user": "nobody"}).json()
        assert stranger["feature_status"]["user"] == {"NOT_FOUND": 1}

    with torch.no_grad():
        model.embedding.table.weight[model.embedding.rows_of("user_shop")] = 0.0
    without = model_scores(model, schema, 12, shops, "desktop")
    assert np.abs(without - expected).max() > 1e-3, "the cross counts for something in these scores"
