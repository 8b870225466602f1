from __future__ import annotations

import numpy as np

from rankd_contract.encoding import Block
from rankd_contract.schema import Entity
from rankd_contract.signature import LOGITS, ROW, SCORES, inputs, outputs, tensors
from tests.support.example_schema import EXAMPLE


def test_inputs_follow_the_layout_of_each_entity() -> None:
    assert [(s.name, s.dtype, s.dims) for s in inputs(EXAMPLE)] == [
        ("in_user_ids", "int32", ("R", 10)),
        ("in_user_values", "float32", ("R", 1)),
        ("in_item_ids", "int32", ("N", 2)),
        ("in_item_values", "float32", ("N", 2)),
        ("in_context_ids", "int32", ("R", 3)),
        ("in_row", "int64", ("N",)),
    ]


def test_outputs_have_a_column_a_task() -> None:
    assert [(s.name, s.dims) for s in outputs(EXAMPLE)] == [(LOGITS, ("N", 2)), (SCORES, ("N", 2))]


def test_blocks_are_named_as_the_inputs_ask_for_and_not_copied() -> None:
    blocks = {e: Block.empty(2, EXAMPLE.layout(e)) for e in Entity}
    row = np.zeros(2, np.int64)
    named = tensors(blocks, row)
    assert list(named) == [s.name for s in inputs(EXAMPLE)]
    assert [str(named[s.name].dtype) for s in inputs(EXAMPLE)] == [s.dtype for s in inputs(EXAMPLE)]
    assert named["in_user_ids"] is blocks[Entity.USER].ids
    assert named[ROW] is row


def test_no_name_can_equal_a_parameters() -> None:
    names = [s.name for s in (*inputs(EXAMPLE), *outputs(EXAMPLE))]
    assert all(n.startswith(("in_", "out_")) for n in names)
    assert len(set(names)) == len(names)
