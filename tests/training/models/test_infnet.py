from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rankd_contract.schema import FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.models.infnet import INFNet
from rankd_training.models.infnet_block import Block
from rankd_training.models.infnet_config import INFNetConfig
from rankd_training.models.infnet_equations import equations
from tests.training.fields import categorical_schema, mixed_schema, random_inputs, tiled

SEQUENCES = """
rankd_schema: 1
name: sequences
views:
  - name: user
    entity: user
    key: u
    fields:
      - {name: liked, kind: sequence, shares: sku, max_length: 5}
      - {name: city, kind: categorical, dtype: string, hash: 7}
      - {name: skipped, kind: sequence, shares: sku, max_length: 3}
  - name: item
    entity: item
    key: i
    fields:
      - {name: sku, kind: categorical, dtype: int64, hash: 30}
      - {name: price, kind: numeric, dtype: float32, default: 1.0}
  - name: session
    entity: context
    fields: [{name: seen, kind: sequence, shares: sku, max_length: 4}]
tasks: [{name: click}, {name: buy}, {name: share}]
"""
ITEM_SEQUENCE = SEQUENCES.replace(
    "{name: price", "{name: bought_with, kind: sequence, shares: sku, max_length: 2}\n      - {name: price"
)
HISTORY_ONLY = """
rankd_schema: 1
name: history
views:
  - {name: user, entity: user, key: u, fields: [{name: liked, kind: sequence, shares: sku, max_length: 5}]}
  - {name: item, entity: item, key: i, fields: [{name: sku, kind: categorical, dtype: int64, hash: 30}]}
tasks: [{name: click}]
"""
SCHEMAS = {
    "several sequences": parse_schema(SEQUENCES),
    "one sequence, every kind of field": mixed_schema(),
    "a sequence of the item": parse_schema(ITEM_SEQUENCE),
    "a history is all that is known": parse_schema(HISTORY_ONLY),
    "no sequence": categorical_schema(3, 2, num_tasks=2),
}
VARIANTS: list[dict[str, Any]] = [
    {"variant": "v1"},
    {"variant": "v1", "blocks": 3, "attention_heads": 4, "hub_hidden": ()},
    {"variant": "v1", "gate_source": "previous", "residual": False},
    {"variant": "v1", "extra_sequence_hubs": 2, "gate_hidden": 0, "position_embeddings": True},
    {"variant": "v1", "blocks": 1},
    {"variant": "v2"},
    {"variant": "v2", "blocks": 3, "attention_heads": 2, "gate_hidden": 2, "hub_hidden": (8, 6)},
    {"variant": "v2", "extra_sequence_hubs": 1, "residual": False, "position_embeddings": False},
    {"variant": "v2", "blocks": 1, "shared_task_tokens": 1},
]
# Columns of the user's ids in the schema of several sequences; those of the context are all `seen`.
LIKED, SKIPPED = slice(0, 5), slice(6, 9)


def make(schema: FeatureSchema | None = None, **settings: Any) -> INFNet:
    torch.manual_seed(0)
    schema = schema or SCHEMAS["several sequences"]
    return INFNet(schema, INFNetConfig(**{"embedding_std": 0.5, **settings})).eval()


def scores(model: INFNet, features: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(features)
    assert found.isfinite().all()
    return found


def with_histories(liked: list[int], skipped: list[int], seen: list[int]) -> dict[str, Tensor]:
    features = random_inputs(SCHEMAS["several sequences"], num_users=1, num_items=6)
    features["in_user_ids"][0, LIKED] = torch.tensor(liked, dtype=torch.int32)
    features["in_user_ids"][0, SKIPPED] = torch.tensor(skipped, dtype=torch.int32)
    features["in_context_ids"][0] = torch.tensor(seen, dtype=torch.int32)
    return features


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_the_serving_form_equals_the_equations(settings: dict[str, Any], schema: FeatureSchema) -> None:
    model = make(schema, **settings)
    features = random_inputs(schema, num_users=3, num_items=17)
    found = scores(model, features)
    assert found.shape == (17, len(schema.tasks))
    with torch.no_grad():
        torch.testing.assert_close(found, equations(model, features), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_a_user_row_shared_by_candidates_equals_one_row_each(variant: str, schema: FeatureSchema) -> None:
    model = make(schema, variant=variant)
    features = random_inputs(schema, num_users=2, num_items=11)
    torch.testing.assert_close(scores(model, features), scores(model, tiled(features)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_a_candidates_score_does_not_depend_on_the_others(variant: str) -> None:
    model = make(variant=variant)
    features = random_inputs(model.schema, num_users=2, num_items=9)
    together = scores(model, features)
    for n in range(9):
        alone = {k: x[n : n + 1] if "item" in k or k == ROW else x for k, x in features.items()}
        torch.testing.assert_close(scores(model, alone), together[n : n + 1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_an_empty_history_contributes_nothing(variant: str) -> None:
    model = make(variant=variant, blocks=3)
    features = with_histories([0] * 5, [0] * 3, [0] * 4)
    before = scores(model, features)
    # Every weight that only histories go through may change, and so may the table's row of id 0.
    with torch.no_grad():
        assert model.sequence_hubs is not None
        for parameter in (*model.sequence_hubs.parameters(), *model.positions):
            parameter.normal_()
        for block in model.blocks:
            assert isinstance(block, Block)
            if block.sequences is not None:
                for parameter in block.sequences.parameters():
                    parameter.normal_()
        model.embedding.table.weight[model.embedding.rows_of("sku").start].normal_()
    torch.testing.assert_close(scores(model, features), before, atol=0, rtol=0)
    full = with_histories([2, 3, 0, 0, 0], [0] * 3, [0] * 4)
    assert (scores(model, full) - before).abs().max() > 1e-3


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_an_empty_history_beside_a_full_one_scores_as_it_does_alone(variant: str) -> None:
    model = make(variant=variant)
    empty, full = with_histories([0] * 5, [0] * 3, [0] * 4), with_histories([4, 2, 9, 8, 3], [5] * 3, [7] * 4)
    both = {k: torch.cat([empty[k], full[k] + 1 if k == ROW else full[k]]) for k in empty}
    apart = torch.cat([scores(model, empty), scores(model, full)])
    torch.testing.assert_close(scores(model, both), apart, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_gradients_of_an_empty_history_are_finite(variant: str) -> None:
    model = make(variant=variant)
    model(with_histories([0] * 5, [0] * 3, [0] * 4)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("settings", [{"variant": "v1"}, {"variant": "v2", "position_embeddings": False}])
def test_without_positions_neither_order_nor_the_place_of_padding_matters(settings: dict[str, Any]) -> None:
    model = make(**settings)
    packed = scores(model, with_histories([2, 9, 4, 0, 0], [5, 6, 0], [3, 0, 0, 0]))
    moved = scores(model, with_histories([0, 4, 0, 2, 9], [0, 6, 5], [0, 0, 3, 0]))
    torch.testing.assert_close(packed, moved, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_a_film_liked_is_not_a_film_skipped(variant: str) -> None:
    model = make(variant=variant)
    liked, skipped = (
        scores(model, with_histories([4, 0, 0, 0, 0], [6, 0, 0], [0] * 4)),
        scores(model, with_histories([6, 0, 0, 0, 0], [4, 0, 0], [0] * 4)),
    )
    assert (liked - skipped).abs().max() > 1e-4


def test_with_positions_the_order_of_a_history_matters() -> None:
    model = make(variant="v2")
    one = scores(model, with_histories([2, 9, 4, 0, 0], [0] * 3, [0] * 4))
    other = scores(model, with_histories([4, 9, 2, 0, 0], [0] * 3, [0] * 4))
    assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize(("bias", "share"), [(2.0, 0.88), (0.0, 0.5)])
@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_gates_start_where_their_bias_says(variant: str, bias: float, share: float) -> None:
    model = make(variant=variant, gate_bias=bias, embedding_std=0.05)
    seen: list[Tensor] = []
    for block in model.blocks:
        assert isinstance(block, Block)
        for group in (block.fields, block.sequences, block.tasks):
            if group is not None:
                group.gate.last.register_forward_hook(lambda _, __, out: seen.append(out))
    scores(model, random_inputs(model.schema, num_users=3, num_items=20))
    assert len(seen) == 4  # fields, sequences and tasks, then tasks
    for out in seen:
        alpha, beta = (out[:, :16], out[:, 16:])
        torch.testing.assert_close(torch.sigmoid(alpha), torch.full_like(alpha, share), atol=0.08, rtol=0)
        assert beta.shape[1] == (16 if variant == "v2" else 0)
        torch.testing.assert_close(beta, torch.zeros_like(beta), atol=0.4, rtol=0)


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_every_parameter_learns(settings: dict[str, Any]) -> None:
    model = make(**settings).train()
    model(random_inputs(model.schema, num_users=8, num_items=64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def linear_count(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_v1_has_as_many_parameters_as_its_equations(blocks: int, sequences: bool) -> None:
    schema = SCHEMAS["several sequences" if sequences else "no sequence"]
    d, m, ns, nt = 8, 3, 2, len(schema.tasks)
    fields, behaviours = (3, 3) if sequences else (5, 0)
    model = make(schema, variant="v1", embedding_width=d, categorical_hubs=m, blocks=blocks)
    attention, norm = 3 * d * d, 2 * d

    def gate(hubs: int) -> int:
        return linear_count(hubs * d, d) + linear_count(d, d)

    sources = 2 if sequences else 1
    tasks = 2 * (sources * attention + norm) + gate(ns)  # T and T~ query, T~ gates
    categorical = sources * attention + norm + gate(m)
    sequence = 2 * attention + norm + gate(behaviours) if sequences else 0
    hubs = linear_count(fields * d, 64) + linear_count(64, m * d) + (d * d if sequences else 0)
    heads = nt * (linear_count(d, 64) + linear_count(64, 1))
    full = blocks - 1  # the last block changes tasks only
    expected = (
        (nt + ns) * d + (hubs if full else 0) + full * (categorical + sequence) + blocks * tasks + heads
    )
    found = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("embedding."))
    assert found == expected


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_v2_has_as_many_parameters_as_its_equations(blocks: int, sequences: bool) -> None:
    schema = SCHEMAS["several sequences" if sequences else "no sequence"]
    d, m, ns, nt = 8, 3, 2, len(schema.tasks)
    fields, behaviours, positions = (3, 3, 12) if sequences else (5, 0, 0)
    model = make(schema, variant="v2", embedding_width=d, categorical_hubs=m, blocks=blocks)
    attention, norm, sources = 3 * d * d, 2 * d, 3 if sequences else 2

    def group(hubs: int) -> int:
        aggregate = sources * attention + linear_count(sources * d, d) + norm
        return aggregate + linear_count(hubs * d, d) + linear_count(d, 2 * d) + norm

    prototypes = behaviours * 2 * linear_count(d, d)
    hubs = linear_count(fields * d, 64) + linear_count(64, m * d) + prototypes
    heads = nt * (linear_count(d, 64) + linear_count(64, 1))
    full = blocks - 1
    middle = group(m) + (group(behaviours) if sequences else 0)
    tokens = (nt + ns + positions) * d
    expected = tokens + (hubs if full else 0) + full * middle + blocks * group(ns + nt) + heads
    found = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("embedding."))
    assert found == expected


def test_what_the_user_alone_decides_is_computed_once_a_user() -> None:
    model = make(mixed_schema(), variant="v1", hub_hidden=()).requires_grad_(False)
    features = random_inputs(model.schema, num_users=1, num_items=100)
    work = []
    for given in (features, tiled(features)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(given)
        work.append(counter.get_total_flops())
    d, m, num_tasks, shared, fields, length = 16, 4, 2, 2, 4, 4  # of the user's four fields and its sequence
    first_hubs = fields * d * m * d + d * d
    keys_and_values = 2 * d * d * (3 * fields + 3 * length)  # each group is a source of three flows
    sequence_hub_queries = 2 * d * d + 2 * num_tasks * d  # of fields and tasks; what tasks answer it
    tasks_over_sequences = 2 * (num_tasks + shared) * length * d
    a_user = 2 * (first_hubs + keys_and_values + sequence_hub_queries + tasks_over_sequences)
    assert work[1] - work[0] == 99 * a_user


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"variant": "v3"}, "variant 'v3': expected one of v1, v2"),
        ({"gate_source": "none"}, "gate_source"),
        ({"variant": "v2", "gate_source": "previous"}, "gate_source"),
        ({"blocks": 0}, "blocks: expected at least 1"),
        ({"shared_task_tokens": 0}, "shared_task_tokens"),
        ({"extra_sequence_hubs": -1}, "extra_sequence_hubs"),
        ({"attention_heads": 3}, "divisor of embedding_width"),
    ],
)
def test_a_config_that_makes_no_model_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        make(**settings)


def test_a_schema_of_histories_alone_is_refused() -> None:
    only = HISTORY_ONLY.replace(
        "kind: categorical, dtype: int64, hash: 30", "kind: sequence, dtype: int64, hash: 30, max_length: 2"
    )
    with pytest.raises(SettingError, match="sequences only"):
        make(parse_schema(only))
