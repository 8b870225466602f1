from __future__ import annotations

import torch

from rankd_training.models.logistic import LogisticConfig, LogisticRegression
from tests.training.fields import mixed_schema, random_inputs, tiled


def test_it_starts_at_even_odds_for_everything() -> None:
    model = LogisticRegression(mixed_schema(), LogisticConfig())
    with torch.no_grad():
        assert model(random_inputs(model.schema, 2, 5)).abs().max() == 0


def test_logits_are_the_sum_of_the_values_weights() -> None:
    torch.manual_seed(0)
    model = LogisticRegression(mixed_schema(), LogisticConfig(embedding_std=1.0))
    features = random_inputs(model.schema, 3, 7)
    with torch.no_grad():
        model.bias_T.copy_(torch.tensor([1.0, 2.0]))
        user_RST, item_NST = model.embedding(features)
        expected = user_RST.sum(1)[features["in_row"]] + item_NST.sum(1) + model.bias_T
        torch.testing.assert_close(model(features), expected)
        torch.testing.assert_close(model(features), model(tiled(features)))


def test_a_history_of_films_has_weights_of_its_own() -> None:
    # One shared weight would say that a film is liked as much as its viewers like films.
    schema = mixed_schema()
    model = LogisticRegression(schema, LogisticConfig())
    tables = sum(schema.cardinality(f) for f in schema.fields.values())
    assert model.embedding.table.num_embeddings == tables
