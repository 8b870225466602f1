from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankd_contract.schema import Entity
from rankd_contract.signature import ROW, inputs
from rankd_training.errors import RunError
from rankd_training.examples.examples import load_examples
from rankd_training.runs.samples import SIZES, sample_requests, save_sample
from tests.training.fields import mixed_schema
from tests.training.tables import write


def test_a_request_has_the_signatures_names_types_and_widths(tmp_path: Path) -> None:
    examples = load_examples(write(tmp_path)[0], mixed_schema())
    for (num_candidates, num_users), request in zip(SIZES, sample_requests(examples), strict=True):
        rows = {"R": num_users, "N": num_candidates}
        assert set(request) == {spec.name for spec in inputs(mixed_schema())}
        for spec in inputs(mixed_schema()):
            array = request[spec.name]
            assert array.dtype == spec.dtype
            assert array.shape == (rows[str(spec.dims[0])], *spec.dims[1:])
            assert array.flags.c_contiguous
        assert request[ROW].min() >= 0
        assert request[ROW].max() < num_users


def test_rows_are_those_of_validation_and_a_user_keeps_its_context(tmp_path: Path) -> None:
    examples = load_examples(write(tmp_path)[0], mixed_schema())
    valid = examples.rows["valid"]
    user, context, item = (examples.blocks[e] for e in (Entity.USER, Entity.CONTEXT, Entity.ITEM))
    moments = {(*user.ids[n].tolist(), *user.values[n].tolist(), *context.ids[n].tolist()) for n in valid}
    items = {(*item.ids[n].tolist(), *item.values[n].tolist()) for n in valid}
    (request,) = sample_requests(examples, [(50, 4)])
    for r in range(4):
        parts = (request[name][r].tolist() for name in ("in_user_ids", "in_user_values", "in_context_ids"))
        assert tuple(value for part in parts for value in part) in moments
    for n in range(50):
        assert (*request["in_item_ids"][n].tolist(), *request["in_item_values"][n].tolist()) in items


def test_a_runs_folder_gives_the_same_requests_as_its_examples(tmp_path: Path) -> None:
    examples = load_examples(write(tmp_path)[0], mixed_schema())
    save_sample(tmp_path, examples)
    for one, other in zip(sample_requests(tmp_path, seed=3), sample_requests(examples, seed=3), strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_another_seed_gives_other_requests(tmp_path: Path) -> None:
    examples = load_examples(write(tmp_path)[0], mixed_schema())
    (one,), (other,) = (sample_requests(examples, [(20, 1)], seed=seed) for seed in (0, 1))
    assert not np.array_equal(one["in_item_ids"], other["in_item_ids"])


def test_a_folder_without_a_sample_is_answered_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"sample\.npz.*train again"):
        sample_requests(tmp_path)
