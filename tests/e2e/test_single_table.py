"""A table without users: trained, exported and served like any other, asked by rows alone."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import tensors
from rankd_export.exporter import export_run
from rankd_service.app import build
from rankd_service.settings_sources import load_settings
from rankd_training.examples.examples import load_examples
from rankd_training.models import registry
from rankd_training.recipes import ctr
from rankd_training.runs import checkpoint
from rankd_training.settings import TrainSettings
from tests.support.memory_store import MemoryStore
from tests.support.server import running, until_ready
from tests.training.fields import TABLE, table_schema

NUM_ROWS = 240


def table() -> pa.Table:
    rng = np.random.default_rng(3)
    colour = rng.choice(["red", "green", "blue"], NUM_ROWS)
    return pa.table(
        {
            "id": [f"row-{i}" for i in range(NUM_ROWS)],
            "colour": colour,
            "shape": rng.integers(0, 9, NUM_ROWS),
            "size": rng.normal(size=NUM_ROWS).astype(np.float32),
            "tags": [["a", "b", "c"][: k % 4] for k in range(NUM_ROWS)],
            "click": (colour == "red") ^ (rng.random(NUM_ROWS) < 0.2),
            "at": np.full(NUM_ROWS, 7 * 3600),
            "split": np.resize(["train"] * 4 + ["valid", "test"], NUM_ROWS),
        }
    )


CONTEXT = """  - name: request
    entity: context
    fields:
      - {name: hour, kind: categorical, source: at, derive: hour_of_day}
tasks:"""


@pytest.mark.parametrize("context", [False, True], ids=["rows-alone", "rows-in-a-context"])
@pytest.mark.parametrize("model", registry.names())
def test_a_table_without_users_trains_exports_and_serves(model: str, context: bool, tmp_path: Path) -> None:
    rows = table()
    pq.write_table(rows, tmp_path / "examples.parquet")
    text = TABLE.replace("tasks:", CONTEXT) if context else TABLE
    (tmp_path / "schema.yaml").write_text(text, encoding="utf-8")
    settings = TrainSettings(
        tmp_path / "examples.parquet", tmp_path / "schema.yaml", tmp_path / "run", model, epochs=1
    )
    run = ctr.train(settings)
    assert run.metrics["test"]["click"].user_auc is None, "rows without users have no AUC within users"
    export_run(tmp_path / "run", tmp_path / "models", name="table")

    service = build(load_settings(models={"repository": tmp_path / "models"}), MemoryStore())
    chosen = rows.take([5, 11, 17]).to_pylist()
    items = [
        {"id": row["id"], "fields": {name: row[name] for name in table_schema().fields}} for row in chosen
    ]
    with running(service) as address, httpx.Client(base_url=address) as client:
        until_ready(address)
        body = {"items": items, "sort": False, "context": {"hour": 7} if context else {}}
        answer = client.post("/v1/rank/table", json=body)
        named = client.post("/v1/rank/table", json={**body, "user": "42"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["items"] == named.json()["items"], "a user that no field describes changes nothing"
    assert found["feature_status"] == {"user": {}, "item": {"NOT_FOUND": 3}}

    examples = load_examples(tmp_path / "examples.parquet", parse_schema(text))
    features = {n: torch.from_numpy(a) for n, a in tensors(examples.blocks, np.arange(NUM_ROWS)).items()}
    with torch.no_grad():
        score_n = torch.sigmoid(checkpoint.load(tmp_path / "run")(features))[:, 0].numpy()
    assert [item["score"] for item in found["items"]] == pytest.approx(score_n[[5, 11, 17]], abs=1e-5)
