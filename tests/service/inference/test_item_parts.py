"""What was computed of an item alone is found again by its row's stamp, and never for another row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rankd_contract.manifest import ITEM_PART, REST
from rankd_contract.repository import open_current
from rankd_contract.schema import Entity
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import ROW, input_name
from rankd_service.deadline import SystemClock
from rankd_service.errors import BundleRefused
from rankd_service.features.near_cache import NearLimits
from rankd_service.features.near_caches import NearCaches
from rankd_service.inference.batch import Batch
from rankd_service.inference.item_parts import ItemParts
from rankd_service.inference.loader import load_current
from rankd_service.inference.session import GraphSession
from rankd_service.inference.whole_graph import WholeGraph
from rankd_service.settings import ProviderChoice
from rankd_service.settings_sources import load_settings
from tests.support.bundles import (
    SCHEMA_TEXT,
    every_input,
    price,
    publish_bundle,
    publish_files_over,
    tensors_for,
)

SCHEMA = parse_schema(SCHEMA_TEXT)
OF_ITEM = tuple(input_name(Entity.ITEM, part) for part in ("ids", "values"))
CATALOGUE = 400


class World:
    """A catalogue whose rows change, each with a stamp of its own, and one graph run both ways."""

    def __init__(self, repository: Path, kept_bytes: int) -> None:
        publish_bundle(repository, graph=every_input)
        bundle = open_current(repository, "films")
        assert bundle.in_two is not None
        item, rest = (GraphSession(path, 1, ProviderChoice.CPU) for path in bundle.in_two)
        self.parts = ItemParts(item, rest, kept_bytes)
        self.tally = self.parts.tally
        self.whole = WholeGraph(GraphSession(bundle.graph, 1, ProviderChoice.CPU))
        self.rows = tensors_for(SCHEMA, 1, CATALOGUE, seed=7)
        self.stamps: NDArray[np.int64] = np.arange(1, CATALOGUE + 1)
        self.random = np.random.default_rng(3)

    def batch(self, at: NDArray[Any], seed: int) -> Batch:
        tensors = tensors_for(SCHEMA, 1, len(at), seed)
        tensors |= {name: self.rows[name][at] for name in OF_ITEM if name in self.rows}
        tensors[ROW] = np.zeros(len(at), np.int64)
        return Batch(tensors, self.stamps[at])

    def change(self, at: NDArray[Any]) -> None:
        fresh = tensors_for(SCHEMA, 1, len(at), int(self.random.integers(1 << 30)))
        for name in OF_ITEM:
            self.rows[name][at] = fresh[name]
        self.stamps[at] = self.stamps.max() + 1 + np.arange(len(at))


@pytest.mark.parametrize("kept_bytes", [1 << 20, 60 * 40, 1], ids=["all fit", "few fit", "one fits"])
def test_scores_are_those_of_the_whole_graph_whatever_is_kept(tmp_path: Path, kept_bytes: int) -> None:
    world = World(tmp_path, kept_bytes)
    for turn in range(200):
        at = world.random.integers(0, CATALOGUE, world.random.integers(1, 60))
        batch = world.batch(at, turn)
        if turn % 5 == 0:  # rows that are not near at hand, or that the request lays fields over
            batch.stamps_N[world.random.random(len(at)) < 0.3] = 0
        np.testing.assert_allclose(world.parts.score(batch), world.whole.score(batch), atol=1e-6)
        world.change(np.unique(world.random.integers(0, CATALOGUE, 20)))
    assert world.tally.computed > 0
    if kept_bytes > CATALOGUE:
        assert world.tally.kept > world.tally.computed / 10


def test_a_part_is_computed_once_a_stamp(tmp_path: Path) -> None:
    world = World(tmp_path, 1 << 20)
    at = np.arange(50)
    for turn in range(3):
        world.parts.score(world.batch(at, turn))
    assert (world.tally.kept, world.tally.computed) == (100, 50)
    world.change(at[:5])
    world.parts.score(world.batch(at, 4))
    assert (world.tally.kept, world.tally.computed) == (145, 55)


def test_candidates_without_a_stamp_are_never_taken_for_another(tmp_path: Path) -> None:
    world = World(tmp_path, 1 << 20)
    for turn in range(3):
        batch = world.batch(world.random.integers(0, CATALOGUE, 30), turn)
        nameless = Batch(batch.tensors, np.zeros(30, np.int64))
        np.testing.assert_allclose(world.parts.score(nameless), world.whole.score(batch), atol=1e-6)
    assert world.tally.kept == 0


def test_a_service_that_keeps_rows_keeps_parts_and_one_that_keeps_none_runs_the_whole_graph(
    tmp_path: Path,
) -> None:
    publish_bundle(tmp_path, graph=every_input)
    limits = {mb: NearLimits(mb << 20, ttl_s=60, stale_s=60, word_s=1) for mb in (0, 1)}
    near = {mb: NearCaches(limits[mb], SystemClock()) for mb in limits}
    settings = load_settings(models={"repository": tmp_path})
    nothing = load_settings(models={"repository": tmp_path}, inference={"item_parts_mb": 0})
    assert isinstance(load_current(tmp_path, "films", settings, near[1]).scorer, ItemParts)
    assert isinstance(load_current(tmp_path, "films", settings, near[0]).scorer, WholeGraph)
    assert isinstance(load_current(tmp_path, "films", settings).scorer, WholeGraph)
    assert isinstance(load_current(tmp_path, "films", nothing, near[1]).scorer, WholeGraph)


@pytest.mark.fault("F3")
def test_two_graphs_that_do_not_give_the_recorded_scores_are_refused(tmp_path: Path) -> None:
    """Also where the whole graph gives them: it is the two that would answer."""
    bundle = publish_bundle(tmp_path, graph=every_input)
    other = publish_bundle(tmp_path / "other", graph=price)
    assert other.in_two is not None
    item, rest = (path.read_bytes() for path in other.in_two)
    settings = load_settings(models={"repository": tmp_path})
    for version, files, said in (
        (2, {ITEM_PART: item, REST: rest}, "scores differ from the recorded ones"),
        (3, {ITEM_PART: item}, "inputs of the rest are"),
        (4, {REST: (bundle.path / ITEM_PART).read_bytes()}, "cannot be run"),
        (5, {ITEM_PART: bundle.graph.read_bytes()}, "inputs of the item's part are"),
    ):
        publish_files_over(bundle, tmp_path, files)
        with pytest.raises(BundleRefused, match=said) as refused:
            load_current(tmp_path, "films", settings)
        assert f"films version {version}: " in str(refused.value)
