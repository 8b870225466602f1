from __future__ import annotations

import pytest
import torch

from rankd_contract.schema import UNKNOWN
from rankd_training.errors import SettingError
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.learning.unknowns import UnknownValues
from tests.training.fields import crossed_schema, mixed_schema, random_inputs


def test_the_share_that_was_asked_for_is_hidden_and_nothing_else() -> None:
    torch.manual_seed(0)
    features = random_inputs(mixed_schema(), num_users=4000, num_items=4000)
    features["in_user_ids"][:, 0] = 5
    hidden = UnknownValues(mixed_schema(), {"user_id": 0.3}).hide(features)
    changed = hidden["in_user_ids"] != features["in_user_ids"]
    assert not changed[:, 1:].any()
    assert changed[:, 0].float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (hidden["in_user_ids"][:, 0][changed[:, 0]] == UNKNOWN).all()
    assert hidden["in_user_ids"].dtype == torch.int32
    for name in features.keys() - {"in_user_ids"}:
        assert torch.equal(hidden[name], features[name])
    assert (features["in_user_ids"][:, 0] == 5).all()  # the batch given is left as it was


def test_rows_that_training_never_read_take_the_unknown_rows_values() -> None:
    torch.manual_seed(0)
    schema = mixed_schema()
    embedding = FeatureEmbedding(schema, 4, std=1.0)
    before = embedding.table.weight.detach().clone()
    features = random_inputs(schema, num_users=3, num_items=2)
    features["in_user_ids"][:, 0] = torch.tensor([3, 4, 4])
    unknowns = UnknownValues(schema, {"user_id": 0.5})
    unknowns.settle(embedding, unknowns.seen(embedding, [features]))
    rows = embedding.rows_of("user_id")
    after = embedding.table.weight.detach()
    for k in range(rows.start, rows.stop):
        expected = before[k] if k - rows.start in {3, 4} else before[rows.start + UNKNOWN]
        assert torch.equal(after[k], expected)
    assert torch.equal(after[rows.stop :], before[rows.stop :])


def test_combinations_that_training_never_read_take_the_unknown_row_of_their_cross() -> None:
    torch.manual_seed(0)
    schema = crossed_schema()
    embedding = FeatureEmbedding(schema, 4, std=1.0)
    before = embedding.table.weight.detach().clone()
    features = random_inputs(schema, num_users=3, num_items=5)
    unknowns = UnknownValues(schema, {"user_id": 0.5})
    seen = unknowns.seen(embedding, [features])
    unknowns.settle(embedding, seen)
    rows, after = embedding.rows_of("user_item"), embedding.table.weight.detach()
    unread = ~seen[rows]
    assert 0 < unread.sum() < len(unread)
    assert (after[rows][unread] == before[rows][UNKNOWN]).all()
    assert torch.equal(after[rows][~unread], before[rows][~unread])
    for other in ("age_hour", "item_hour"):  # of fields without a rate: their unknown row learned nothing
        assert torch.equal(after[embedding.rows_of(other)], before[embedding.rows_of(other)])


def test_padding_reads_no_row_and_a_shared_table_is_read_from_both_sides() -> None:
    schema = mixed_schema()
    embedding = FeatureEmbedding(schema, 4)
    features = random_inputs(schema, num_users=1, num_items=1)
    features["in_user_ids"][0, 1:5] = torch.tensor([9, 8, 0, 0])
    features["in_item_ids"][0, 0] = 7
    rows = embedding.rows_of("item_id")
    seen = UnknownValues(schema, {"user_id": 0.5}).seen(embedding, [features])[rows]
    assert seen.nonzero()[:, 0].tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"nobody": 0.1}, "'nobody' is no categorical field"),
        ({"recent": 0.1}, "'recent' is no categorical field"),
        ({"user_id": 1.5}, "share from 0 to 1 for 'user_id', got 1.5"),
    ],
)
def test_a_rate_that_makes_no_sense_is_refused(rates: dict[str, float], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        UnknownValues(mixed_schema(), rates)
