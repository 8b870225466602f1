from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rankd_contract.encoding import Block
from rankd_training.examples.batches import Batches
from rankd_training.examples.examples import load_examples
from tests.training.fields import mixed_schema
from tests.training.tables import write


def test_a_batch_holds_the_chosen_rows_in_their_order(tmp_path: Path) -> None:
    examples = load_examples(write(tmp_path)[0], mixed_schema())
    chosen = torch.tensor([7, 3, 1100, 3])
    batch = Batches(examples).read(chosen)
    for entity, block in examples.blocks.items():
        if block.ids.shape[1]:
            assert np.array_equal(batch.features[f"in_{entity.value}_ids"], block.ids[chosen])
    assert np.array_equal(batch.label_NT, examples.label_nT[chosen])
    assert np.array_equal(batch.group_N, examples.group_n[chosen])
    assert batch.features["in_row"].tolist() == [0, 1, 2, 3]


def test_examples_may_lie_in_files_and_are_never_changed(tmp_path: Path) -> None:
    examples = load_examples(write(tmp_path)[0], mixed_schema())
    blocks = {}
    for entity, block in examples.blocks.items():
        if not block.ids.size:
            blocks[entity] = block
            continue
        for part in ("ids", "values"):
            np.save(tmp_path / f"{entity.value}_{part}.npy", getattr(block, part))
        ids, values = (
            np.load(
                tmp_path / f"{entity.value}_{part}.npy", mmap_mode="r" if getattr(block, part).size else None
            )
            for part in ("ids", "values")
        )
        blocks[entity] = Block(ids, values)
    mapped = Batches(replace(examples, blocks=blocks)).read(torch.tensor([5, 900]))
    plain = Batches(examples).read(torch.tensor([5, 900]))
    for name, tensor in plain.features.items():
        assert torch.equal(mapped.features[name], tensor)
        mapped.features[name].zero_()  # a copy, which a model may do with as it likes


def test_rows_are_read_in_turn(tmp_path: Path) -> None:
    batches = Batches(load_examples(write(tmp_path)[0], mixed_schema()))
    chosen = torch.arange(1200).repeat(8)
    read = list(batches.in_turn(chosen))
    assert [len(batch.label_NT) for batch in read] == [8192, 1408]
    assert torch.equal(
        torch.cat([b.label_NT for b in read]), torch.from_numpy(batches.examples.label_nT[chosen])
    )
