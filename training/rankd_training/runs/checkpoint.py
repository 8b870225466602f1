"""Weights on disk: the one place that saves or loads them. Tensors travel as safetensors, never as pickles.

A checkpoint is `weights.safetensors`, `model.json` (architecture and config) and `schema.yaml` (the schema's
text, byte for byte); a run's folder holds these beside its records.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rankd_contract.errors import SchemaError
from rankd_contract.schema_file import parse_schema
from rankd_training.errors import RunError, SettingError
from rankd_training.models.registry import RankingModel, build, name_of
from rankd_training.runs.spread import Spread, write

__all__ = ["FORMAT", "MODEL", "SCHEMA", "WEIGHTS", "load", "read_into", "save"]

FORMAT = "rankd-checkpoint/1"
WEIGHTS, MODEL, SCHEMA = "weights.safetensors", "model.json", "schema.yaml"

PIECE_BYTES = 1 << 24
_SHOWN = 3


def save(folder: Path, model: RankingModel, schema_text: bytes, *, weights: Path | None = None) -> None:
    """Write a checkpoint into an existing folder; `schema_text` is the schema file's own bytes.

    `weights` is a file of the model's weights, on the same file system, where the model has not all of them.
    """
    tree = {"format": FORMAT, "architecture": name_of(model), "config": asdict(model.config)}
    if weights is None:
        write(folder / WEIGHTS, model.state_dict())
    else:
        link(weights, folder / WEIGHTS)
    (folder / MODEL).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    (folder / SCHEMA).write_bytes(schema_text)


def link(file: Path, place: Path) -> None:
    """Have a file in a second place, without a copy where the file system can."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def read_into(path: Path, tensors: Mapping[str, Tensor | Spread]) -> None:
    """Read a file of tensors into those given: memory for a second copy is never needed.

    Of one that is spread over processes, each reads the rows it holds.

    The library maps the file, and mapped pages count as this process's memory, or reads whole tensors; so
    this reads the format itself: 8 bytes of length, a JSON header, then the tensors' bytes.

    Raises:
        RunError: the file cannot be read, or holds others.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            start = file.tell()
            header.pop("__metadata__", None)
            if header.keys() != tensors.keys():
                raise RunError(path, "does not hold this model's weights")
            for name, tensor in tensors.items():
                held, skipped = (tensor.held_H, tensor.offset) if isinstance(tensor, Spread) else (tensor, 0)
                begin, end = header[name]["data_offsets"]
                nbytes = math.prod(tensor.shape) * held.element_size()
                if header[name]["shape"] != list(tensor.shape) or end - begin != nbytes:
                    raise RunError(path, f"{name} is {header[name]['shape']}, expected {list(tensor.shape)}")
                assert held.is_contiguous()
                if not held.numel():
                    continue
                file.seek(start + begin + skipped)
                array: Any = held.detach().numpy().reshape(-1)
                whole = memoryview(array).cast("B")
                for at in range(0, len(whole), PIECE_BYTES):
                    piece = whole[at : at + PIECE_BYTES]
                    if file.readinto(piece) != len(piece):
                        raise RunError(path, f"ends within {name}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise RunError(path, f"cannot be read: {error}") from error


def load(folder: Path) -> RankingModel:
    """Read a checkpoint -> the model with its weights, in evaluation mode.

    Raises:
        RunError: a file is missing, unreadable or does not fit the others; names it.
    """
    if not folder.exists():
        raise RunError(folder, "does not exist; name the folder of a run, as `rankd train` prints it")
    try:
        tree = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        schema = parse_schema((folder / SCHEMA).read_text(encoding="utf-8"))
        if tree.get("format") != FORMAT:
            raise RunError(folder / MODEL, f"format is {tree.get('format')!r}, this version reads {FORMAT!r}")
        model = build(tree["architecture"], schema, tree["config"])
        weights = load_file(folder / WEIGHTS)
        _check_names(folder / WEIGHTS, model.state_dict().keys(), weights.keys())
        model.load_state_dict(weights)
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


def _check_names(path: Path, wanted: Collection[str], found: Collection[str]) -> None:
    """Refuse weights of other layers, which is what another version's model may have."""
    missing, others = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or others:
        lacks = f"lacks {', '.join(missing[:_SHOWN])}" if missing else "has all its weights"
        more = f", has {', '.join(others[:_SHOWN])} besides" if others else ""
        problem = f"does not hold this model's weights: {lacks}{more}"
        raise RunError(
            path, f"{problem}; if another version of rankd trained it, use that one or train again"
        )
