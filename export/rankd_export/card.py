"""A bundle's model card: what the model learned from, how good it is, and what its authors had to decide.

Markdown for people, beside the manifest, which holds the same for machines. What is not known is said to be.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from rankd_contract.manifest import BundleManifest
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.schema_file import load_schema
from rankd_training.data.data_sets import DATA_SETS
from rankd_training.models.registry import RankingModel

__all__ = ["card"]

_MEASURES = {
    "rows": "rows",
    "base_rate": "base rate",
    "auc": "AUC",
    "user_auc": "AUC per user",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}


def card(manifest: BundleManifest, model: RankingModel) -> str:
    """Write the card of a bundle that is about to be published."""
    parts = [
        f"# {manifest.model}\n\nA {manifest.architecture} model of {manifest.created_at}, exported as "
        f"{manifest.export['precision']}, that scores {', '.join(manifest.tasks)}.",
        _section("Data", _data(manifest.record, model.schema)),
        _section("Metrics", _metrics(manifest)),
        _section("Cost and precision", _cost(manifest)),
        _section("Settings", _settings(manifest.record, model)),
        _section("What the paper says and what is ours", _choices(model)),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}"


def _data(record: Mapping[str, object], schema: FeatureSchema) -> str:
    settings = record.get("settings")
    examples = settings.get("examples") if isinstance(settings, Mapping) else None
    lines = [
        f"- Examples: {examples or 'not recorded'}, SHA-256 {record.get('examples_sha256', 'not recorded')}",
        f"- Split by {record.get('split_by', 'not recorded')}; rows: {_pairs(record.get('rows'))}",
        f"- Schema: {schema.name}, fingerprint {schema.fingerprint:016x}",
    ]
    for entity in Entity:
        names = [place.field.name for place in schema.layout(entity).fields]
        lines.append(f"- Fields of the {entity.value}: {', '.join(names) or 'none'}")
    known = [d for d in DATA_SETS.values() if load_schema(d.schema).fingerprint == schema.fingerprint]
    lines += [f"- Licence, if the rows are those of {d.name}: {d.licence}" for d in known]
    if not known:
        lines.append("- Licence: not known; the rows are of no data set that rankd fetches")
    warnings = record.get("warnings")
    lines += [f"- Warning: {said}" for said in (warnings if isinstance(warnings, list) else [])]
    return "\n".join(lines)


def _metrics(manifest: BundleManifest) -> str:
    rows = [
        [split, task, *(_number(found.get(measure)) for measure in _MEASURES)]
        for split, by_task in manifest.metrics.items()
        for task, found in by_task.items()
    ]
    curves = ", ".join(f"{task}: {curve['kind']}" for task, curve in manifest.calibration.items())
    return f"{_table(['split', 'task', *_MEASURES.values()], rows)}\n\nCalibration: {curves or 'none'}."


def _cost(manifest: BundleManifest) -> str:
    work = manifest.export["work"]
    text = (
        f"{work['per_candidate']:,} multiply-adds a candidate and {work['per_user']:,} a user. Largest "
        f"difference of the float32 graph's scores to the model's: "
        f"{max(size['max_score_error'] for size in manifest.parity['sizes']):.1e}."
    )
    rows = [
        [task, *(_number(loss[key]) for key in ("rows", "auc_loss", "log_loss_rise", "largest_difference"))]
        for task, loss in manifest.export.get("lost", {}).items()
    ]
    if not rows:
        return text
    head = ["task", "validation rows", "AUC loss", "log loss rise", "largest difference of a score"]
    return f"{text}\n\nLost to {manifest.export['precision']}:\n\n{_table(head, rows)}"


def _settings(record: Mapping[str, object], model: RankingModel) -> str:
    settings = record.get("settings")
    chosen = {f"model.{name}": value for name, value in asdict(model.config).items()}
    if isinstance(settings, Mapping):
        chosen |= {name: value for name, value in settings.items() if name != "model_config"}
    chosen |= {"seed": record.get("seed"), "parameters": record.get("parameters")}
    return _table(["setting", "value"], [[name, f"`{value}`"] for name, value in chosen.items()])


def _choices(model: RankingModel) -> str:
    """Return what the model's own module, class and settings say of it, which is kept beside the code."""
    kind = type(model)
    said = [sys.modules[kind.__module__].__doc__, kind.__doc__, type(model.config).__doc__]
    return "\n\n".join(f"```text\n{inspect.cleandoc(text)}\n```" for text in said if text)


def _pairs(found: object) -> str:
    return ", ".join(f"{k} {v}" for k, v in found.items()) if isinstance(found, Mapping) else "not recorded"


def _number(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
