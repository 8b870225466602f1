from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rankd_contract.schema import UNKNOWN, FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_training.layers.embedding import FeatureEmbedding
from tests.training.fields import MIXED, mixed_schema, random_inputs

# Slots of the mixed schema.
USER_ID, INCOME, RECENT, AGE, HOUR = range(5)
ITEM_ID, TAGS, PRICE, WEIGHT = range(4)
# Columns of its id inputs.
RECENT_IDS, AGE_ID = slice(1, 5), 5
TAG_IDS = slice(1, 4)


def make(schema: FeatureSchema | None = None, *, share: bool = True) -> FeatureEmbedding:
    torch.manual_seed(0)
    return FeatureEmbedding(schema or mixed_schema(), 4, std=1.0, share=share)


def inputs(num_users: int = 2, num_items: int = 3) -> dict[str, Tensor]:
    return random_inputs(mixed_schema(), num_users, num_items)


def first_row(embedding: FeatureEmbedding, name: str, schema: FeatureSchema | None = None) -> int:
    """Where a table starts, worked out from the schema alone."""
    at = 0
    for field in (schema or mixed_schema()).fields.values():
        if field.name == name:
            return at
        if not field.shares:
            at += mixed_schema().cardinality(field)
    raise AssertionError(name)


def test_slots_come_in_the_order_of_the_fields_user_then_context() -> None:
    embedding = make()
    user_RSE, item_NSE = embedding(inputs())
    assert user_RSE.shape == (2, 5, 4)
    assert item_NSE.shape == (3, 4, 4)
    assert (embedding.num_user_slots, embedding.num_item_slots) == (5, 4)


def test_each_field_reads_its_own_rows_of_the_one_table() -> None:
    embedding, features = make(), inputs()
    table = embedding.table.weight
    user_RSE, item_NSE = embedding(features)
    for slot, name, ids in (
        (USER_ID, "user_id", features["in_user_ids"][:, 0]),
        (AGE, "age", features["in_user_ids"][:, AGE_ID]),
        (HOUR, "hour", features["in_context_ids"][:, 0]),
    ):
        torch.testing.assert_close(user_RSE[:, slot], table[first_row(embedding, name) + ids])
    items = features["in_item_ids"][:, 0]
    torch.testing.assert_close(item_NSE[:, ITEM_ID], table[first_row(embedding, "item_id") + items])


def test_a_list_is_the_mean_of_its_values_and_padding_counts_for_nothing() -> None:
    embedding, features = make(), inputs()
    features["in_user_ids"][0, RECENT_IDS] = torch.tensor([7, 3, 0, 0], dtype=torch.int32)
    user_RSE, _ = embedding(features)
    table = embedding.table.weight[first_row(embedding, "item_id") :]  # shared with the item's own id
    torch.testing.assert_close(user_RSE[0, RECENT], (table[7] + table[3]) / 2)


def test_an_empty_list_gives_exactly_zero_and_a_finite_gradient() -> None:
    embedding, features = make(), inputs()
    features["in_user_ids"][:, RECENT_IDS] = 0
    features["in_item_ids"][:, TAG_IDS] = 0
    user_RSE, item_NSE = embedding(features)
    assert user_RSE[:, RECENT].abs().max() == 0
    assert item_NSE[:, TAGS].abs().max() == 0
    (user_RSE.sum() + item_NSE.sum()).backward()
    assert embedding.table.weight.grad is not None
    assert embedding.table.weight.grad.isfinite().all()


def test_missing_is_a_learned_row_of_a_categorical_field() -> None:
    embedding, features = make(), inputs()
    features["in_item_ids"][:, 0] = 0
    _, item_NSE = embedding(features)
    torch.testing.assert_close(item_NSE[0, ITEM_ID], embedding.table.weight[first_row(embedding, "item_id")])


@given(wild=st.integers(-(2**31), 2**31 - 1), column=st.integers(0, 5))
def test_an_id_outside_its_field_reads_the_unknown_row(wild: int, column: int) -> None:
    embedding, features = make(), inputs(num_users=1)
    cardinality = [12, 22, 22, 22, 22, 5][column]
    if 0 <= wild < cardinality:
        return
    features["in_user_ids"][0, column] = wild
    found, _ = embedding(features)
    features["in_user_ids"][0, column] = UNKNOWN
    expected, _ = embedding(features)
    assert torch.equal(found, expected)


def test_a_number_is_its_vector_times_the_value_plus_a_bias() -> None:
    embedding, features = make(), inputs()
    side = embedding.item_side
    assert side.scale_VE is not None
    assert side.shift_VE is not None
    with torch.no_grad():
        side.shift_VE.normal_()
    _, item_NSE = embedding(features)
    price_N = features["in_item_values"][:, 0]
    torch.testing.assert_close(item_NSE[:, PRICE], price_N[:, None] * side.scale_VE[0] + side.shift_VE[0])


def test_a_sharing_field_can_have_rows_of_its_own() -> None:
    extra = mixed_schema().cardinality(mixed_schema().fields["recent"])
    assert make(share=False).table.num_embeddings == make().table.num_embeddings + extra


def test_a_field_may_share_a_table_that_a_later_view_owns() -> None:
    schema = mixed_schema()  # `recent` comes before `item_id`
    assert list(schema.fields).index("recent") < list(schema.fields).index("item_id")
    assert make(schema).table.num_embeddings == 12 + 5 + 22 + 5 + 26


def test_the_published_initialisation_is_xavier_a_table() -> None:
    schema = parse_schema(MIXED.replace("hash: 20", "hash: 5000"))
    torch.manual_seed(0)
    table = FeatureEmbedding(schema, 16, std=None).table.weight.detach()
    large = table[17 : 17 + 5002]
    assert large.abs().max() <= math.sqrt(6 / 5018)
    assert large.abs().max() == pytest.approx(math.sqrt(6 / 5018), rel=0.01)
    assert table[:12].abs().max() == pytest.approx(math.sqrt(6 / 28), rel=0.05)


def test_inputs_are_left_as_they_were() -> None:
    features = inputs()
    before = {name: tensor.clone() for name, tensor in features.items()}
    make()(features)
    assert all(torch.equal(before[name], features[name]) for name in before)


def test_sequences_can_be_read_position_by_position() -> None:
    embedding, features = make(), inputs()
    features["in_user_ids"][0, RECENT_IDS] = torch.tensor([7, 0, 3, -5], dtype=torch.int32)
    user, item = embedding.tokens(features)
    table = embedding.table.weight[first_row(embedding, "item_id") :]
    assert user.sequence_RLE is not None
    assert user.present_RL is not None
    assert user.present_RL[0].tolist() == [1, 0, 1, 1]
    expected = torch.stack([table[7], torch.zeros(4), table[3], table[UNKNOWN]])
    torch.testing.assert_close(user.sequence_RLE[0], expected)
    assert embedding.user_side.sequence_lengths == (4,)
    assert (item.sequence_RLE, item.present_RL) == (None, None)  # tags are a set, not a history


def test_the_other_slots_are_those_of_the_pooled_reading() -> None:
    embedding, features = make(), inputs()
    user_RSE, item_NSE = embedding(features)
    user, item = embedding.tokens(features)
    assert user.slots_RSE is not None
    assert item.slots_RSE is not None
    assert torch.equal(user.slots_RSE, user_RSE[:, [USER_ID, INCOME, AGE, HOUR]])
    assert torch.equal(item.slots_RSE, item_NSE)
