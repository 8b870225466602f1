from __future__ import annotations

import errno
import json
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rankd_training.errors import RunError
from rankd_training.models.registry import build, names
from rankd_training.runs import checkpoint
from tests.training.fields import MIXED, mixed_schema, random_inputs


def saved(folder: Path, name: str = "mlcc") -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(name, mixed_schema(), {"embedding_std": 0.5})
    checkpoint.save(folder, model, MIXED.encode())
    return model


@pytest.mark.parametrize("name", names())
def test_a_loaded_model_scores_as_the_saved_one(tmp_path: Path, name: str) -> None:
    model = saved(tmp_path, name).eval()
    loaded = checkpoint.load(tmp_path)
    assert not loaded.training
    assert loaded.schema == mixed_schema()
    features = random_inputs(mixed_schema(), 2, 9)
    with torch.no_grad():
        assert torch.equal(loaded(features), model(features))


def test_weights_that_the_disk_does_not_hold_are_told_as_an_error_of_ours(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RunError, match=r"weights.safetensors: cannot be written"):
            saved(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_weights_are_copied_where_a_file_cannot_have_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuses)
    (tmp_path / "weights").write_bytes(b"abc")
    checkpoint.link(tmp_path / "weights", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"abc"


def test_weights_of_other_layers_are_refused_with_what_to_do(tmp_path: Path) -> None:
    model = saved(tmp_path)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights["head.out.bias"] = weights.pop("head.bias")
    save_file(weights, tmp_path / "weights.safetensors")
    said = r"lacks head\.bias, has head\.out\.bias besides; if another version of rankd trained it"
    with pytest.raises(RunError, match=said):
        checkpoint.load(tmp_path)


def test_the_schema_is_kept_byte_for_byte(tmp_path: Path) -> None:
    saved(tmp_path)
    assert (tmp_path / "schema.yaml").read_bytes() == MIXED.encode()


def test_a_checkpoint_is_three_files_and_none_can_run_code(tmp_path: Path) -> None:
    saved(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"weights.safetensors", "model.json", "schema.yaml"}


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "schema.yaml"])
def test_a_missing_or_broken_file_is_named(tmp_path: Path, name: str) -> None:
    saved(tmp_path)
    (tmp_path / name).write_bytes(b"[]")
    with pytest.raises(RunError, match=name):
        checkpoint.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(RunError, match=name):
        checkpoint.load(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    tree = json.loads((tmp_path / "model.json").read_text())
    tree["config"]["heads"] = 2
    (tmp_path / "model.json").write_text(json.dumps(tree))
    with pytest.raises(RunError, match=r"weights\.safetensors"):
        checkpoint.load(tmp_path)


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    tree = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**tree, "format": "rankd-checkpoint/9"}))
    with pytest.raises(RunError, match="rankd-checkpoint/9"):
        checkpoint.load(tmp_path)


def test_a_file_is_read_into_tensors_that_are_there_already(tmp_path: Path) -> None:
    stored = {"a": torch.randn(300, 7), "n": torch.tensor(3), "flags": torch.tensor([True, False])}
    save_file(stored, tmp_path / "x.safetensors", metadata={"who": "me"})
    found = {name: torch.zeros_like(tensor) for name, tensor in stored.items()}
    places = {name: tensor.data_ptr() for name, tensor in found.items()}
    checkpoint.read_into(tmp_path / "x.safetensors", found)
    assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())
    assert {name: tensor.data_ptr() for name, tensor in found.items()} == places


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"b": torch.zeros(3, 2)}, "does not hold this model's weights"),
        ({"a": torch.zeros(2, 3)}, r"a is \[3, 2\], expected \[2, 3\]"),
        ({"a": torch.zeros(3, 2, dtype=torch.float64)}, "a is"),
    ],
)
def test_a_file_of_other_tensors_is_refused(
    tmp_path: Path, expected: dict[str, torch.Tensor], said: str
) -> None:
    save_file({"a": torch.ones(3, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(RunError, match=said):
        checkpoint.read_into(tmp_path / "x.safetensors", expected)


@pytest.mark.parametrize("text", [b"", b"nonsense", b"\xff" * 40, b"\x02" + bytes(7) + b"[]"])
def test_a_file_that_holds_no_tensors_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(text)
    with pytest.raises(RunError, match=r"x\.safetensors"):
        checkpoint.read_into(tmp_path / "x.safetensors", {"a": torch.zeros(1)})


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(30, 2)}, path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunError, match="ends within a"):
        checkpoint.read_into(path, {"a": torch.zeros(30, 2)})
