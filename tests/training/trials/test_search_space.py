from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from rankd_training.errors import SettingError
from rankd_training.trials.search_space import read_space

SPACE = """
learning_rate: {log: [1e-4, 0.01]}
batch_size: {choice: [128, 256]}
model.heads: {int: [1, 4]}
model.embedding_width: {log_int: [2, 16]}
model.dropout: {float: [0, 0.5]}
model.hidden: {choice: [[16], [32, 16]]}
patience: 3
"""


def space_file(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def test_every_kind_gives_values_within_its_ends(tmp_path: Path) -> None:
    space = read_space(space_file(tmp_path, SPACE), "mlcc")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        found = space.suggest(study.ask())
        assert 1e-4 <= found["learning_rate"] <= 0.01
        assert found["batch_size"] in {128, 256}
        assert 1 <= found["model.heads"] <= 4
        assert isinstance(found["model.embedding_width"], int)
        assert 0 <= found["model.dropout"] <= 0.5
        assert found["model.hidden"] in ([16], [32, 16])
        assert found["patience"] == 3


def test_a_value_is_encoded_as_it_is_suggested_where_it_lies_in_the_space(tmp_path: Path) -> None:
    space = read_space(space_file(tmp_path, SPACE), "mlcc")
    by_name = {one.name: one for one in space.dimensions}
    assert by_name["model.hidden"].encode((32, 16)) == "[32, 16]"
    assert by_name["model.hidden"].encode((8,)) is None
    assert by_name["model.heads"].encode(4) == 4
    assert by_name["model.heads"].encode(5) is None
    assert by_name["model.heads"].encode(None) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rat: {log: [0.1, 1]}", r"line 1: mlcc has no setting 'learning_rat'.*'learning_rate'"),
        ("a: 1\nmodel.head: {int: [1, 2]}", r"line 1: mlcc has no setting 'a'"),
        ("model.head: {int: [1, 2]}", r"did you mean 'model.heads'"),
        ("seed: {int: [1, 2]}", r"no setting 'seed' to search"),
        ("model.heads: {int: [1, 2.5]}", r"line 1, model.heads: expected two whole numbers"),
        ("\nmodel.heads: {int: [4, 1]}", r"line 2, model.heads: expected the lowest first, got \[4, 1\]"),
        ("model.dropout: {log: [0, 1]}", r"expected ends above 0"),
        ("model.dropout: {flaot: [0, 1]}", r"no kind is called 'flaot'; did you mean 'float'"),
        ("model.dropout: {float: [0, 1], log: [1, 2]}", r"expected one of .* got float, log"),
        ("model.dropout: {float: 0.5}", r"expected a list after float, got 0.5"),
        ("model.dropout: {choice: []}", r"at least one choice"),
        ("model.heads: {choice: [1, two]}", r"line 1: MLCCConfig.heads: expected int, got 'two'"),
        ("batch_size: {float: [1, 2]}\n", r"batch_size: expected int"),
        ("epochs: 3", r"nothing to search"),
        ("epochs: {int: [1, 2]}\nepochs: {int: [1, 3]}", r"line 2: key 'epochs' is given twice"),
        ("- epochs", r"expected a mapping such as learning_rate"),
        ("a: [", r"line 1"),
        ("", r"expected a mapping"),
    ],
)
def test_a_wrong_space_is_named_with_file_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = space_file(tmp_path, text)
    with pytest.raises(SettingError, match=said) as raised:
        read_space(path, "mlcc")
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("leafs: {int: [2, 9]}", r"line 1: lightgbm has no setting 'leafs' to search; did you mean 'leaves'"),
        ("trees: 9\nleaves: {choice: [7, many]}", r"line 2: LightGBMConfig.leaves: expected int, got 'many'"),
    ],
)
def test_a_space_of_a_yardstick_is_checked_as_a_models_is(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        read_space(space_file(tmp_path, text), "lightgbm")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"nowhere\.yaml: cannot be read"):
        read_space(tmp_path / "nowhere.yaml", "mlcc")
