"""A file that several processes wrote together is the file that one would have written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rankd_training.errors import RunError
from rankd_training.runs.checkpoint import read_into
from rankd_training.runs.spread import Spread, hand_over, write

TABLE, MOMENTS = torch.randn(11, 4), torch.arange(11, dtype=torch.int32)
DENSE = {"bias": torch.randn(3, 2), "step": torch.tensor(5.0), "none": torch.zeros(0, 4)}


def first_of_three(held: Tensor) -> Iterator[Tensor]:
    whole = TABLE if held.dim() == 2 else MOMENTS
    assert torch.equal(held, whole[:4])
    yield from torch.split(whole, 3)


def spread(whole: Tensor, start: int, stop: int) -> Spread:
    return Spread(whole[start:stop].clone(), start, len(whole), first_of_three)


def test_what_was_written_in_pieces_is_an_ordinary_file(tmp_path: Path) -> None:
    write(tmp_path / "x", {**DENSE, "table": spread(TABLE, 0, 4), "moments": spread(MOMENTS, 0, 4)})
    found = load_file(tmp_path / "x")
    expected = {**DENSE, "table": TABLE, "moments": MOMENTS}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (4, 8), (8, 11), (11, 11)])
def test_each_process_reads_the_rows_it_holds(tmp_path: Path, start: int, stop: int) -> None:
    write(tmp_path / "x", {**DENSE, "table": TABLE, "moments": MOMENTS})
    own = {"table": spread(TABLE, start, stop), "moments": spread(MOMENTS, start, stop)}
    for tensor in own.values():
        tensor.held_H.zero_()
    read_into(tmp_path / "x", {**{name: tensor.clone() for name, tensor in DENSE.items()}, **own})
    assert torch.equal(own["table"].held_H, TABLE[start:stop])
    assert torch.equal(own["moments"].held_H, MOMENTS[start:stop])


def test_a_table_with_another_number_of_rows_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x", {"table": TABLE})
    with pytest.raises(RunError, match=r"table is \[11, 4\], expected \[12, 4\]"):
        read_into(tmp_path / "x", {"table": Spread(TABLE[:4], 0, 12, first_of_three)})


def test_others_hand_their_rows_over_in_the_order_of_the_file() -> None:
    asked: list[int] = []

    def send(held: Tensor) -> Iterator[Tensor]:
        asked.append(held.dim())
        yield from ()

    tensors = {"table": Spread(TABLE[4:8], 4, 11, send), "moments": Spread(MOMENTS[4:8], 4, 11, send)}
    hand_over({**DENSE, **tensors})
    assert asked == [1, 2]
