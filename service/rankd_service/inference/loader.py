"""Bundle -> LoadedModel, or BundleRefused: what does not reproduce its recorded scores here is not served."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankd_contract.bundle import Bundle, open_bundle, open_current
from rankd_contract.calibration import Calibration
from rankd_contract.errors import ContractError
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.signature import (
    FIELD_WEIGHTS,
    ROW,
    SCORES,
    TensorSpec,
    calibrated,
    inputs,
    outputs,
)
from rankd_service.domain import ModelCard
from rankd_service.errors import BundleRefused
from rankd_service.features.assemble import Assembler
from rankd_service.features.near_caches import NearCaches
from rankd_service.inference.batch import Batch
from rankd_service.inference.cost import CostModel
from rankd_service.inference.golden import GoldenError, read_golden
from rankd_service.inference.graph_file import GraphError, check_graph
from rankd_service.inference.item_parts import ItemParts
from rankd_service.inference.opening import open_session
from rankd_service.inference.registry import LoadedModel, Scorer
from rankd_service.inference.session import GraphSession
from rankd_service.inference.trial import Trial, graphs_of, weights_beside
from rankd_service.inference.trust import check_seal
from rankd_service.inference.whole_graph import Session, WholeGraph
from rankd_service.settings import ProviderChoice, Settings

__all__ = ["load_current", "load_model", "load_version"]

_LOOSEST_TOLERANCE = 1e-2
_OF_ITEM = f"in_{Entity.ITEM.value}_"
_TIMED_RUNS = 3
_log = logging.getLogger(__name__)

Requests = Mapping[str, dict[str, NDArray[np.generic]]]


def load_current(
    repository: Path,
    name: str,
    settings: Settings,
    near: NearCaches | None = None,
    trial: Trial | None = None,
) -> LoadedModel:
    """Load the version a model's pointer names. Raises BundleRefused."""
    try:
        return load_model(open_current(repository, name), settings, near, trial)
    except (ContractError, OSError) as error:
        raise BundleRefused(f"{name}: {error}") from error


def load_version(
    repository: Path,
    name: str,
    version: int,
    settings: Settings,
    near: NearCaches | None = None,
    trial: Trial | None = None,
) -> LoadedModel:
    """Load a version of a model, whatever its pointer names. Raises BundleRefused."""
    try:
        bundle = open_bundle(repository / name / str(version))
    except (ContractError, OSError) as error:
        raise BundleRefused(f"{name}: {error}") from error
    if (bundle.manifest.model, bundle.manifest.version) != (name, version):
        raise BundleRefused(f"{name}: the folder of version {version} holds another bundle")
    return load_model(bundle, settings, near, trial)


def load_model(
    bundle: Bundle, settings: Settings, near: NearCaches | None = None, trial: Trial | None = None
) -> LoadedModel:
    """Try a verified bundle out, compile it and replay its recorded requests; item rows are kept in `near`.

    `trial` is by default one as the settings say. Raises BundleRefused, first of all where
    `models.trusted_keys` are set and it is not signed by one of them.
    """
    manifest, schema = bundle.manifest, bundle.schema
    at = f"{manifest.model} version {manifest.version}"
    check_seal(bundle, settings.models.trusted_keys)
    (trial or Trial(settings.models))(bundle)
    if not settings.models.trial_s:
        _check_graphs(at, bundle)
    session, tolerance = open_session(bundle, settings.inference)
    if session.fallback:
        _log.warning(
            "%s: inference.provider is prefer_cuda, but it runs on %s: %s",
            at,
            session.provider,
            session.fallback,
        )
    _check_signature(at, session, bundle)
    requests = _golden(at, bundle.golden)
    scorer: Scorer = WholeGraph(session)
    _replay(at, scorer, schema, tolerance, requests)
    in_two = _in_two(at, bundle, settings)
    if in_two is not None:
        _replay(at, in_two, schema, manifest.golden_tolerance, requests)
        # Without rows near at hand, or with two to an item, there are no stamps to find parts by.
        if near is not None and near.keeps and len(schema.of(Entity.ITEM)) == 1:
            scorer = in_two
    cost = CostModel(_timed(scorer, requests))
    if in_two is not None and near is not None:
        in_two.tally = near.parts  # what is scored from here on is somebody's request
    fusion = {**manifest.fusion, **settings.models.fusion.get(manifest.model, {})}
    calibration = Calibration.of(manifest.calibration, manifest.tasks)
    return LoadedModel(
        card=_card(bundle, session, fusion),
        fingerprint=schema.fingerprint,
        scorer=scorer,
        assembler=Assembler(schema, settings.features.namespace, settings.features.clock_skew_s, near),
        fusion_T=_weights(at, fusion, manifest.tasks),
        prior_T=calibration(np.concatenate([r[SCORES] for r in requests.values()])).mean(0, dtype=np.float32),
        cost=cost,
        calibration=calibration,
    )


def _check_graphs(at: str, bundle: Bundle) -> None:
    for graph in graphs_of(bundle):
        try:
            check_graph(graph, bundle.manifest.opset, weights_beside(bundle))
        except (GraphError, OSError) as error:
            raise BundleRefused(f"{at}: {graph.name}: {error}") from error


def _timed(scorer: Scorer, requests: Requests) -> Iterator[tuple[int, float]]:
    """Run the recorded requests again, now that everything is warm -> candidates and seconds of each."""
    for arrays in requests.values():
        batch = _batch(arrays)
        spent_s = []
        for _ in range(_TIMED_RUNS):
            began_s = time.perf_counter()
            scorer.score(batch)
            spent_s.append(time.perf_counter() - began_s)
        yield len(arrays[SCORES]), min(spent_s)


def _check_signature(at: str, session: Session, bundle: Bundle) -> None:
    manifest, schema = bundle.manifest, bundle.schema
    if manifest.tasks != tuple(t.name for t in schema.tasks):
        raise BundleRefused(f"{at}: the manifest's tasks are not the schema's; export again")
    # May be there, are not read: what scores are made of, and calibration, which follows the graph here.
    others = tuple(s for s in manifest.outputs if s.name == FIELD_WEIGHTS or s == calibrated(schema))
    for kind, graph, claimed, wanted in (
        ("inputs", session.inputs, manifest.inputs, inputs(schema)),
        ("outputs", session.outputs, manifest.outputs, (*outputs(schema), *others)),
    ):
        if {s.name: s for s in claimed} != {s.name: s for s in wanted}:
            raise BundleRefused(
                f"{at}: {kind} in the manifest are {_words(claimed)}, the schema needs {_words(wanted)}"
            )
        same_names = {s.name for s in graph} == {s.name for s in wanted}
        if not same_names or not all(_fits(_named(graph, s.name), s) for s in wanted):
            raise BundleRefused(
                f"{at}: {kind} of the graph are {_words(graph)}, the schema needs {_words(wanted)}"
            )


def _fits(found: TensorSpec, wanted: TensorSpec) -> bool:
    """Compare with an onnxruntime shape, in which a dynamic dimension has any name or none."""
    if found.dtype != wanted.dtype or len(found.dims) != len(wanted.dims):
        return False
    pairs = zip(found.dims, wanted.dims, strict=True)
    return all(a == b if isinstance(a, int) else isinstance(b, str) for a, b in pairs)


def _in_two(at: str, bundle: Bundle, settings: Settings) -> ItemParts | None:
    """The graph in two, where the bundle has it, there is room for parts, and they are where rows are."""
    most_bytes = int(settings.inference.item_parts_mb * (1 << 20))
    if bundle.in_two is None or not most_bytes or settings.inference.provider is not ProviderChoice.CPU:
        return None
    item, rest = (
        GraphSession(path, settings.inference.threads, ProviderChoice.CPU) for path in bundle.in_two
    )
    given = inputs(bundle.schema)
    of_item = tuple(s for s in given if s.name.startswith(_OF_ITEM))
    for kind, graph, allowed in (
        ("item's part", item.inputs, of_item),
        ("rest", rest.inputs, (*given, *item.outputs)),
    ):
        if not all(any(s.name == a.name and _fits(s, a) for a in allowed) for s in graph):
            raise BundleRefused(
                f"{at}: inputs of the {kind} are {_words(graph)}, expected of {_words(allowed)}; export again"
            )
    if not item.outputs or not all(_is_row(s) for s in item.outputs):
        raise BundleRefused(
            f"{at}: outputs of the item's part are {_words(item.outputs)}, expected a row a candidate each; "
            "export again"
        )
    return ItemParts(item, rest, most_bytes)


def _is_row(spec: TensorSpec) -> bool:
    return (
        bool(spec.dims) and isinstance(spec.dims[0], str) and all(isinstance(d, int) for d in spec.dims[1:])
    )


def _batch(arrays: Mapping[str, NDArray[np.generic]]) -> Batch:
    return Batch({n: a for n, a in arrays.items() if n != SCORES}, np.zeros(len(arrays[ROW]), np.int64))


def _replay(at: str, scorer: Scorer, schema: FeatureSchema, tolerance: float, requests: Requests) -> None:
    if not 0 <= tolerance <= _LOOSEST_TOLERANCE:
        raise BundleRefused(
            f"{at}: golden_tolerance is {tolerance}, expected 0 to {_LOOSEST_TOLERANCE}: more proves nothing"
        )
    names = [s.name for s in inputs(schema)]
    for k, arrays in requests.items():
        absent = sorted({*names, SCORES} - arrays.keys())
        if absent:
            raise BundleRefused(f"{at}: golden request {k} lacks {', '.join(absent)}; export again")
        # onnxruntime divides by the number of rows and dies, the process with it, where there is none.
        if not all(np.size(arrays[name]) for name in names):
            raise BundleRefused(f"{at}: golden request {k} holds an empty input; export again")
        expected = arrays[SCORES].astype(np.float64)
        try:
            found = scorer.score(_batch({n: arrays[n] for n in names}))
        except Exception as error:  # onnxruntime's own errors share no other base
            raise BundleRefused(f"{at}: golden request {k} cannot be run: {error}") from error
        if found.shape != expected.shape:
            raise BundleRefused(
                f"{at}: golden request {k}: scores are {found.shape}, recorded were {expected.shape}"
            )
        with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, which is refused below
            difference = float(np.max(np.abs(found - expected), initial=0.0))
        if not difference <= tolerance:  # so that NaN is refused too
            raise BundleRefused(
                f"{at}: golden request {k}: scores differ from the recorded ones by {difference:.3g}, "
                f"allowed is {tolerance:.3g}; this runtime computes the graph differently, export for it"
            )


def _golden(at: str, path: Path) -> Requests:
    try:
        requests = read_golden(path)
    except GoldenError as error:
        raise BundleRefused(f"{at}: {path.name} {error}") from error
    if not requests:
        raise BundleRefused(f"{at}: {path.name} holds no request, so nothing proves the scores; export again")
    return requests


def _weights(at: str, fusion: Mapping[str, float], tasks: tuple[str, ...]) -> NDArray[np.float64]:
    unknown = sorted(fusion.keys() - set(tasks))
    if unknown:
        raise BundleRefused(
            f"{at}: fusion weighs {', '.join(unknown)}, the tasks are {', '.join(tasks)}; mend models.fusion"
        )
    weights = np.array([fusion.get(task, 0.0) for task in tasks], np.float64)
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not ((weights >= 0).all() and 0 < total < np.inf):
        raise BundleRefused(f"{at}: fusion weights are {dict(fusion)}; expected none below 0 and one above")
    shares: NDArray[np.float64] = weights / total
    return shares


def _card(bundle: Bundle, session: Session, fusion: Mapping[str, float]) -> ModelCard:
    manifest, schema = bundle.manifest, bundle.schema
    return ModelCard(
        name=manifest.model,
        version=manifest.version,
        architecture=manifest.architecture,
        digest=bundle.digest,
        created_at=manifest.created_at,
        provider=session.provider,
        tasks=manifest.tasks,
        fusion=dict(fusion),
        user_fields=_field_names(schema, Entity.USER),
        item_fields=_field_names(schema, Entity.ITEM),
        context_fields=_field_names(schema, Entity.CONTEXT),
        nodes=session.nodes,
        fallback=session.fallback,
    )


def _field_names(schema: FeatureSchema, entity: Entity) -> tuple[str, ...]:
    return tuple(f.name for view in schema.of(entity) for f in view.fields)


def _named(specs: tuple[TensorSpec, ...], name: str) -> TensorSpec:
    return next(s for s in specs if s.name == name)


def _words(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{s.name} {s.dtype}{list(s.dims)}" for s in specs)
