"""Requests made of real validation rows, as model inputs: for golden requests and parity checks.

A run's folder keeps encoded validation rows in `sample.npz`, so that export needs no data set.

Legend: R user rows, N candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rankd_contract.encoding import Block
from rankd_contract.schema import Entity
from rankd_contract.signature import tensors
from rankd_training.errors import RunError
from rankd_training.examples.examples import Examples

__all__ = ["SAMPLE", "SIZES", "sample_requests", "save_sample"]

SAMPLE = "sample.npz"
SAMPLE_ROWS = 2048

# Candidates and user rows of the requests that every export is checked with.
SIZES = ((1, 1), (2, 1), (7, 1), (100, 1), (1000, 1), (2, 3), (7, 3), (100, 3), (1000, 3))


def sample_requests(
    source: Examples | Path, sizes: Iterable[tuple[int, int]] = SIZES, *, seed: int = 0
) -> list[dict[str, npt.NDArray[Any]]]:
    """Make one request a size, by input name: real users in real contexts, real items, paired at random.

    Args:
        source: a run's folder, or examples.
        sizes: (N, R) of each request; R is 1 where a schema has neither user nor context.
        seed: the same gives the same requests.

    Raises:
        RunError: the folder has no sample.
    """
    blocks = _load_sample(source) if isinstance(source, Path) else _valid_blocks(source)
    num_rows = len(blocks[Entity.ITEM])
    has_user_side = any(
        block.ids.shape[1] + block.values.shape[1]
        for entity, block in blocks.items()
        if entity is not Entity.ITEM
    )
    generator = np.random.default_rng(seed)
    requests = []
    for num_candidates, num_users in sizes:
        user_R = generator.integers(num_rows, size=num_users if has_user_side else 1)
        item_N = generator.integers(num_rows, size=num_candidates)
        rows = {Entity.USER: user_R, Entity.CONTEXT: user_R, Entity.ITEM: item_N}
        chosen = {entity: _take(block, rows[entity]) for entity, block in blocks.items()}
        row_N = generator.integers(len(user_R), size=num_candidates)
        requests.append(tensors(chosen, row_N))
    return requests


def save_sample(folder: Path, examples: Examples) -> None:
    """Write at most 2048 validation rows, evenly spread over the split, to `sample.npz`."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for entity, block in _valid_blocks(examples).items():
        arrays[f"{entity.value}_ids"], arrays[f"{entity.value}_values"] = block.ids, block.values
    np.savez_compressed(folder / SAMPLE, allow_pickle=False, **arrays)


def _valid_blocks(examples: Examples) -> dict[Entity, Block]:
    rows = examples.rows["valid"]
    spread = rows[np.linspace(0, len(rows) - 1, min(SAMPLE_ROWS, len(rows))).astype(np.int64)]
    return {entity: _take(block, spread) for entity, block in examples.blocks.items()}


def _load_sample(folder: Path) -> Mapping[Entity, Block]:
    try:
        with np.load(folder / SAMPLE, allow_pickle=False) as arrays:
            return {
                entity: Block(arrays[f"{entity.value}_ids"], arrays[f"{entity.value}_values"])
                for entity in Entity
            }
    except (OSError, KeyError, ValueError) as error:
        raise RunError(folder / SAMPLE, f"cannot be read: {error}; train again with `rankd train`") from error


def _take(block: Block, rows: npt.NDArray[np.int64]) -> Block:
    return Block(np.ascontiguousarray(block.ids[rows]), np.ascontiguousarray(block.values[rows]))
