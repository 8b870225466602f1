"""Weights on disk: the one place that saves or loads them. Tensors travel as safetensors, never as pickles.

A checkpoint is `weights.safetensors`, `model.json` (architecture and config) and `schema.yaml` (the schema's
text, byte for byte); a run's folder holds these beside its records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rankd_contract.errors import SchemaError
from rankd_contract.schema_file import parse_schema
from rankd_training.errors import RunError, SettingError
from rankd_training.models.registry import RankingModel, build, name_of

__all__ = ["FORMAT", "MODEL", "SCHEMA", "WEIGHTS", "load", "read_into", "save"]

FORMAT = "rankd-checkpoint/1"
WEIGHTS, MODEL, SCHEMA = "weights.safetensors", "model.json", "schema.yaml"

PIECE_BYTES = 1 << 24


def save(folder: Path, model: RankingModel, schema_text: bytes) -> None:
    """Write a checkpoint into an existing folder; `schema_text` is the schema file's own bytes."""
    tree = {"format": FORMAT, "architecture": name_of(model), "config": asdict(model.config)}
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    (folder / MODEL).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    (folder / SCHEMA).write_bytes(schema_text)


def read_into(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read a file of tensors into those given, piece by piece: memory for a second copy is never needed.

    Raises:
        RunError: the file cannot be read, or holds others.
    """
    try:
        # Not mapped: mapped pages would count as this process's memory until it closes the file.
        with safe_open(path, "pt", backend="pread") as file:
            if set(file.keys()) != set(tensors):
                raise RunError(path, "does not hold this model's weights")
            for name, tensor in tensors.items():
                stored = file.get_slice(name)
                if stored.get_shape() != list(tensor.shape):
                    raise RunError(path, f"{name} is {stored.get_shape()}, expected {list(tensor.shape)}")
                if not tensor.dim():
                    tensor.copy_(file.get_tensor(name))
                    continue
                rows = max(1, PIECE_BYTES // max(1, tensor[:1].nbytes))
                for at in range(0, len(tensor), rows):
                    tensor[at : at + rows] = stored[at : min(at + rows, len(tensor))]
    except (OSError, SafetensorError) as error:
        raise RunError(path, f"cannot be read: {error}") from error


def load(folder: Path) -> RankingModel:
    """Read a checkpoint -> the model with its weights, in evaluation mode.

    Raises:
        RunError: a file is missing, unreadable or does not fit the others; names it.
    """
    try:
        tree = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        schema = parse_schema((folder / SCHEMA).read_text(encoding="utf-8"))
        if tree.get("format") != FORMAT:
            raise RunError(folder / MODEL, f"format is {tree.get('format')!r}, this version reads {FORMAT!r}")
        model = build(tree["architecture"], schema, tree["config"])
        model.load_state_dict(load_file(folder / WEIGHTS))
    except OSError as error:
        raise RunError(folder, f"not a complete run ({error}); train again with `rankd train`") from error
    except (ValueError, KeyError, AttributeError, SettingError) as error:
        raise RunError(
            folder / MODEL, f"does not describe a model: {error}; train again with `rankd train`"
        ) from error
    except SchemaError as error:
        raise RunError(folder / SCHEMA, str(error)) from error
    except (SafetensorError, RuntimeError) as error:
        raise RunError(folder / WEIGHTS, f"does not hold this model's weights: {error}") from error
    model.eval()
    return model
