"""Do graphs take and give what the schema says? Compared by name, type and dimensions, before any run."""

from __future__ import annotations

from rankd_contract.bundle import Bundle
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.signature import FIELD_WEIGHTS, TensorSpec, calibrated, inputs, outputs
from rankd_service.errors import BundleRefused
from rankd_service.inference.session import GraphSession
from rankd_service.inference.whole_graph import Session

__all__ = ["check_in_two", "check_whole"]

_OF_ITEM = f"in_{Entity.ITEM.value}_"


def check_whole(at: str, session: Session, bundle: Bundle) -> None:
    """Raise BundleRefused where the graph, the manifest and the schema do not agree."""
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


def check_in_two(at: str, item: GraphSession, rest: GraphSession, schema: FeatureSchema) -> None:
    """Raise BundleRefused where the two graphs do not follow each other, from the schema to the scores."""
    given = inputs(schema)
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


def _fits(found: TensorSpec, wanted: TensorSpec) -> bool:
    """Compare with an onnxruntime shape, in which a dynamic dimension has any name or none."""
    if found.dtype != wanted.dtype or len(found.dims) != len(wanted.dims):
        return False
    pairs = zip(found.dims, wanted.dims, strict=True)
    return all(a == b if isinstance(a, int) else isinstance(b, str) for a, b in pairs)


def _is_row(spec: TensorSpec) -> bool:
    return (
        bool(spec.dims) and isinstance(spec.dims[0], str) and all(isinstance(d, int) for d in spec.dims[1:])
    )


def _named(specs: tuple[TensorSpec, ...], name: str) -> TensorSpec:
    return next(s for s in specs if s.name == name)


def _words(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{s.name} {s.dtype}{list(s.dims)}" for s in specs)
