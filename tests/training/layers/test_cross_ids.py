"""Crosses as models get them: the contract's ids, one more slot a cross, and still one gather a side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rankd_contract.crosses import cross_ids
from rankd_contract.schema import MISSING, UNKNOWN, FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import ROW, slot_names
from rankd_training.examples.inputs import field_columns
from rankd_training.layers.embedding import FeatureEmbedding
from tests.training.fields import TABLE, crossed_schema, mixed_schema, random_inputs

SCHEMA = crossed_schema()
OF_USER, OF_ITEM = ["age_hour"], ["user_item", "item_hour"]


def make(schema: FeatureSchema = SCHEMA) -> FeatureEmbedding:
    torch.manual_seed(0)
    return FeatureEmbedding(schema, 4, std=1.0)


def expected_ids(features: dict[str, Tensor], name: str) -> Tensor:
    """The contract's ids of a cross, a row a candidate where it is the item's, else a user row."""
    (cross,) = (c for c in SCHEMA.crosses if c.name == name)
    of_field = []
    for field in cross.of:
        source, at = field_columns(SCHEMA)[field]
        ids = features[source][:, at.start].numpy()
        if name in OF_ITEM and "item" not in source:
            ids = ids[features[ROW].numpy()]
        of_field.append(ids)
    return torch.from_numpy(cross_ids(SCHEMA, cross, *of_field))


def found_ids(embedding: FeatureEmbedding, features: dict[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for side, names in ((embedding.user_side, OF_USER), (embedding.item_side, OF_ITEM)):
        assert side.cross_ids is not None
        found |= dict(zip(names, side.cross_ids(features).T, strict=True))
    return found


@pytest.mark.parametrize("num_users", [1, 40])
def test_the_graphs_ids_are_the_contracts(num_users: int) -> None:
    features = random_inputs(SCHEMA, num_users, 500)
    found = found_ids(make(), features)
    assert all(ids.dtype == torch.int32 for ids in found.values())
    for name, ids in found.items():
        assert torch.equal(ids, expected_ids(features, name))
        if len(ids) > 1:
            assert len(set(ids.tolist())) > 4, "or else agreement would prove little"


@given(user=st.integers(-(2**31), 2**31 - 1), item=st.integers(-(2**31), 2**31 - 1))
def test_wild_ids_cross_as_the_contract_says(user: int, item: int) -> None:
    features = random_inputs(SCHEMA, 1, 2)
    features["in_user_ids"][0, 0], features["in_item_ids"][0, 0] = user, item
    found = found_ids(make(), features)
    for name, ids in found.items():
        assert torch.equal(ids, expected_ids(features, name))


def test_a_missing_id_makes_a_missing_cross_and_an_unknown_one_an_unknown_cross() -> None:
    features = random_inputs(SCHEMA, 1, 3)
    features["in_user_ids"][0, 0] = 5
    features["in_item_ids"][:, 0] = torch.tensor([MISSING, UNKNOWN, 9])
    ids = found_ids(make(), features)["user_item"]
    assert ids[:2].tolist() == [MISSING, UNKNOWN]
    assert ids[2] > UNKNOWN


def test_a_cross_is_a_slot_after_its_sides_fields_and_reads_its_own_rows() -> None:
    embedding, features = make(), random_inputs(SCHEMA, 2, 7)
    user_RSE, item_NSE = embedding(features)
    names = slot_names(SCHEMA)
    assert (embedding.num_user_slots, embedding.num_item_slots) == (len(names[0]), len(names[1])) == (6, 6)
    assert user_RSE.shape == (2, 6, 4)
    assert item_NSE.shape == (7, 6, 4)
    fields_alone = mixed_schema()
    start = make(fields_alone).table.num_embeddings
    for cross in SCHEMA.crosses:
        assert embedding.rows_of(cross.name) == slice(start, start + SCHEMA.cardinality(cross))
        start += SCHEMA.cardinality(cross)
    for side, slots in zip(names, (user_RSE, item_NSE), strict=True):
        for slot, name in enumerate(side):
            if name in {*OF_USER, *OF_ITEM}:
                rows = embedding.table.weight[embedding.rows_of(name)]
                assert torch.equal(slots[:, slot], rows[expected_ids(features, name).long()])


def test_the_fields_own_slots_are_as_without_crosses() -> None:
    crossed, plain, features = make(), make(mixed_schema()), random_inputs(SCHEMA, 2, 7)
    plain.load_state_dict(
        {k: v[: plain.table.num_embeddings] if "table" in k else v for k, v in crossed.state_dict().items()}
    )
    for with_crosses, without in zip(crossed(features), plain(features), strict=True):
        assert torch.equal(with_crosses[:, : without.shape[1]], without)


def test_crosses_cost_no_gather_more() -> None:
    embedding, reads = make().eval(), []
    embedding.table.register_forward_hook(lambda *_: reads.append(1))
    embedding(random_inputs(SCHEMA, 2, 7))
    assert len(reads) == 2


def test_tokens_hold_the_crosses_too() -> None:
    embedding, features = make(), random_inputs(SCHEMA, 2, 7)
    user_RSE, item_NSE = embedding(features)
    user, item = embedding.tokens(features)
    recent = slot_names(SCHEMA)[0].index("recent")
    others = [slot for slot in range(user_RSE.shape[1]) if slot != recent]
    assert user.slots_RSE is not None
    assert item.slots_RSE is not None
    assert torch.equal(user.slots_RSE, user_RSE[:, others])
    assert torch.equal(item.slots_RSE, item_NSE)


def test_a_table_without_users_can_cross_its_own_fields() -> None:
    schema = parse_schema(TABLE + "crosses: [{name: both, of: [shape, colour], rows: 30}]")
    embedding, features = make(schema), random_inputs(schema, 1, 9)
    _, item_NSE = embedding(features)
    colour_N, shape_N = features["in_item_ids"][:, :2].numpy().T
    ids = torch.from_numpy(cross_ids(schema, schema.crosses[0], shape_N, colour_N))
    assert item_NSE.shape == (9, 5, 4)
    assert torch.equal(item_NSE[:, 4], embedding.table.weight[embedding.rows_of("both")][ids.long()])


def test_rows_that_a_cross_reads_are_marked_as_read() -> None:
    embedding, features = make(), random_inputs(SCHEMA, 2, 7)
    seen = torch.zeros(embedding.table.num_embeddings, dtype=torch.bool)
    embedding.mark_read(features, seen)
    for cross in SCHEMA.crosses:
        read = seen[embedding.rows_of(cross.name)].nonzero().flatten()
        assert read.tolist() == np.unique(expected_ids(features, cross.name)).tolist()


def test_nothing_of_a_cross_is_in_a_checkpoint_but_its_rows() -> None:
    assert list(make().state_dict()) == list(make(mixed_schema()).state_dict())
    assert not [m for m in make(mixed_schema()).modules() if type(m).__name__ == "CrossIds"]
    assert isinstance(make().table, nn.Embedding)
