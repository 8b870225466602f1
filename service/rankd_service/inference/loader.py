"""Bundle -> LoadedModel, or BundleRefused: what does not reproduce its recorded scores here is not served."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankd_contract.bundle import Bundle, open_bundle
from rankd_contract.calibration import Calibration
from rankd_contract.errors import ContractError
from rankd_contract.repository import open_current
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.signature import SCORES
from rankd_service.domain import ModelCard
from rankd_service.errors import BundleRefused
from rankd_service.features.assemble import Assembler
from rankd_service.features.near_caches import NearCaches
from rankd_service.inference.cost import CostModel
from rankd_service.inference.graph_file import GraphError, check_graph
from rankd_service.inference.item_parts import ItemParts
from rankd_service.inference.opening import open_session
from rankd_service.inference.registry import LoadedModel, Scorer
from rankd_service.inference.replay import recorded, replay, timed
from rankd_service.inference.session import CUDA, GraphSession
from rankd_service.inference.signature_check import check_in_two, check_whole
from rankd_service.inference.trial import Trial, graphs_of, weights_beside
from rankd_service.inference.trust import check_seal
from rankd_service.inference.whole_graph import Session, WholeGraph
from rankd_service.settings import ProviderChoice, Settings

__all__ = ["load_current", "load_model", "load_version"]

_log = logging.getLogger(__name__)


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
    check_whole(at, session, bundle)
    requests = recorded(at, bundle.golden)
    scorer: Scorer = WholeGraph(session)
    replay(at, scorer, schema, tolerance, requests)
    in_two = _in_two(at, bundle, settings, session)
    if in_two is not None:
        replay(at, in_two, schema, manifest.golden_tolerance, requests)
        # Without rows near at hand, or with two to an item, there are no stamps to find parts by.
        if near is not None and near.keeps and len(schema.of(Entity.ITEM)) == 1:
            scorer = in_two
    cost = CostModel(timed(scorer, requests))
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


def _in_two(at: str, bundle: Bundle, settings: Settings, session: Session) -> ItemParts | None:
    """The graph in two, where the bundle has it, there is room for parts, and they are where rows are."""
    most_bytes = int(settings.inference.item_parts_mb * (1 << 20))
    if bundle.in_two is None or not most_bytes or session.provider == CUDA:
        return None
    item, rest = (
        GraphSession(path, settings.inference.threads, ProviderChoice.CPU) for path in bundle.in_two
    )
    check_in_two(at, item, rest, bundle.schema)
    return ItemParts(item, rest, most_bytes)


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
