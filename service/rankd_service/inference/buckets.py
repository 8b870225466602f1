"""Requests of any size through a graph that runs in a few fixed sizes, with one user a run.

What a CUDA graph asks for (`captured.py` runs it). A request is filled up with rows of zeros, which are valid
ids and whose scores are cut off; what is too large for the largest bucket, and other users' candidates, are
runs of their own. Scores do not depend on the candidates beside them: they are the same but for last digits.

Legend: R user rows, N candidates, B candidates of a bucket, T tasks, W numbers a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankd_contract.cuda_graph import CudaGraph
from rankd_contract.signature import ROW, TensorSpec
from rankd_service.errors import BundleRefused

__all__ = ["Bucketed", "FixedRuns"]


class FixedRuns(Protocol):
    """Runs of one graph in fixed sizes; one at a time.

    Attributes:
        provider: where they run.
        nodes: how many nodes of the graph each provider has taken.
        inputs: what the graph takes; candidates come in any of the buckets.
        outputs: what it gives.
    """

    provider: str
    nodes: Mapping[str, int]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(
        self, bucket: int, outputs: Sequence[str], tensors: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        """Run once over inputs of exactly this size -> the named outputs, which are the caller's to keep."""


class Bucketed:
    """What a `GraphSession` does, in fixed sizes. Safe to call from several threads, who take turns.

    Attributes:
        provider: where it runs.
        nodes: how many nodes of the graph each provider has taken.
        fallback: empty: where there is no device, no CUDA graph is run.
        inputs: what it takes, of any size.
        outputs: what it gives.
    """

    def __init__(self, runs: FixedRuns, graph: CudaGraph) -> None:
        """Run every bucket once, so that all is captured. Raises BundleRefused where it cannot be."""
        self._runs, self._graph, self._turn = runs, graph, Lock()
        self.provider, self.nodes, self.fallback = runs.provider, dict(runs.nodes), ""
        self._per_user = {s.name for s in runs.inputs if s.dims[:1] == (1,)}
        self.inputs = tuple(
            TensorSpec(s.name, s.dtype, ("R", *s.dims[1:]) if s.name in self._per_user else s.dims)
            for s in runs.inputs
        )
        self.outputs = runs.outputs
        fixed = [s for s in (*self.inputs, *self.outputs) if not isinstance(s.dims[0], str)]
        if fixed or all(s.name != ROW for s in self.inputs):
            raise BundleRefused(
                f"the CUDA graph takes {', '.join(f'{s.name}{list(s.dims)}' for s in runs.inputs)}; expected "
                f"one row of the user's inputs, and {ROW} and the candidates' in any number; export again"
            )
        # By bucket, filled again and again: nothing is allocated for a request but its scores.
        self._filled = {size: self._zeros(size) for size in graph.buckets}
        for size, arrays in self._filled.items():
            try:
                runs.run(size, [s.name for s in self.outputs], arrays)
            except Exception as error:  # a runtime's own errors share no other base
                raise BundleRefused(f"{size} candidates cannot be run on {self.provider}: {error}") from error

    def run(self, outputs: Sequence[str], tensors: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Run over R users and N candidates -> the named outputs [N, ...]."""
        row_N = tensors[ROW]
        if not len(row_N):
            return [self._empty(name) for name in outputs]
        with self._turn:
            if row_N[0] == row_N[-1] and (row_N == row_N[0]).all():
                return self._of_user(outputs, tensors, int(row_N[0]))
            made: dict[str, NDArray[np.float32]] = {}
            for user in np.unique(row_N):
                (mine,) = np.nonzero(row_N == user)
                theirs = {
                    name: a if name in self._per_user else np.asarray(a)[mine] for name, a in tensors.items()
                }
                for name, part in zip(outputs, self._of_user(outputs, theirs, int(user)), strict=True):
                    whole = made.setdefault(name, np.empty((len(row_N), *part.shape[1:]), part.dtype))
                    whole[mine] = part
            return [made[name] for name in outputs]

    def _of_user(
        self, outputs: Sequence[str], tensors: Mapping[str, NDArray[Any]], user: int
    ) -> list[NDArray[np.float32]]:
        pieces = [
            [found[: stop - start] for found in self._runs.run(size, outputs, arrays)]
            for start, stop, size in self._graph.pieces(len(tensors[ROW]))
            for arrays in [self._fill(size, tensors, user, start, stop)]
        ]
        return (
            pieces[0] if len(pieces) == 1 else [np.concatenate(parts) for parts in zip(*pieces, strict=True)]
        )

    def _fill(
        self, size: int, tensors: Mapping[str, NDArray[Any]], user: int, start: int, stop: int
    ) -> Mapping[str, NDArray[Any]]:
        arrays = self._filled[size]
        for name, array in arrays.items():
            if name == ROW:
                continue  # one user: zeros
            if name in self._per_user:
                array[0] = tensors[name][user]
            else:
                array[: stop - start] = tensors[name][start:stop]
                array[stop - start :] = 0
        return arrays

    def _zeros(self, size: int) -> dict[str, NDArray[Any]]:
        return {
            s.name: np.zeros((1 if s.name in self._per_user else size, *map(int, s.dims[1:])), s.dtype)
            for s in self.inputs
        }

    def _empty(self, name: str) -> NDArray[np.float32]:
        spec = next(s for s in self.outputs if s.name == name)
        return np.empty((0, *map(int, spec.dims[1:])), np.float32)
