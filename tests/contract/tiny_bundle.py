"""A bundle of three small files, published as any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from rankd_contract.bundle import Bundle
from rankd_contract.manifest import GOLDEN, GRAPH, MANIFEST, SCHEMA, BundleManifest
from rankd_contract.repository import publish
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import inputs, outputs

__all__ = ["FILES", "MANIFEST_OF_TINY", "SCHEMA_TEXT", "TINY", "altered", "names", "publish_tiny"]

SCHEMA_TEXT = """{rankd_schema: 1, name: tiny, tasks: [{name: click}], views: [
{name: u, entity: user, key: u, fields: [{name: uf, kind: categorical, dtype: int64, hash: 9}]},
{name: i, entity: item, key: i, fields: [{name: if, kind: categorical, dtype: int64, hash: 9}]}]}"""
TINY = parse_schema(SCHEMA_TEXT)
MANIFEST_OF_TINY = BundleManifest(
    model="films",
    version=0,
    architecture="mlcc",
    created_at="2026-11-22T10:00:00Z",
    schema_fingerprint=f"{TINY.fingerprint:016x}",
    tasks=("click",),
    fusion={"click": 1.0},
    inputs=inputs(TINY),
    outputs=outputs(TINY),
    opset=17,
    golden_tolerance=1e-5,
)
FILES: dict[str, bytes | Path] = {GRAPH: b"graph one", SCHEMA: SCHEMA_TEXT.encode(), GOLDEN: b"golden one"}


def publish_tiny(repository: Path, graph: bytes = b"graph one") -> Bundle:
    return publish(repository, MANIFEST_OF_TINY, {**FILES, GRAPH: graph})


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def altered(bundle: Bundle, change: Callable[[dict[str, object]], object]) -> None:
    """Rewrite the manifest and the pointer as someone would who may write both."""
    path = bundle.path / MANIFEST
    tree = json.loads(path.read_bytes())
    change(tree)
    path.write_bytes(json.dumps(tree).encode())
