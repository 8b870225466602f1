from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankd_training.data import libsvm
from rankd_training.data.libsvm import LibsvmFile
from rankd_training.errors import ExamplesError


def written(tmp_path: Path, text: str) -> LibsvmFile:
    path = tmp_path / "rows.libsvm"
    path.write_bytes(text.encode())
    return LibsvmFile(path)


def test_lines_become_lists_and_columns_by_position(tmp_path: Path) -> None:
    file = written(tmp_path, "+1 3:1 5:0.5\n\n-1 4:1  6:1e-3\r\n1.0 3:1 7:2\n")
    assert file.num_rows == 3
    (batch,) = file.batches(file.schema.names)
    assert batch.schema.equals(file.schema)
    assert batch.to_pydict() == {
        "label": [1, 0, 1],
        "ids": [[3, 5], [4, 6], [3, 7]],
        "values": [[1, 0.5], [1, pytest.approx(1e-3)], [1, 2]],
        "id_1": [3, 4, 3],
        "id_2": [5, 6, 7],
        "value_1": [1, 1, 1],
        "value_2": [0.5, pytest.approx(1e-3), 2],
    }


def test_lines_of_any_length_are_lists(tmp_path: Path) -> None:
    (batch,) = written(tmp_path, "1 3:1\n0\n1 3:1 4:2\n").batches(["ids", "label"])
    assert batch.to_pydict() == {"ids": [[3], [], [3, 4]], "label": [1, 0, 1]}


def test_the_mark_that_some_editors_write_first_is_no_label(tmp_path: Path) -> None:
    (batch,) = written(tmp_path, "\ufeff1 3:1\n0 4:1\n").batches(["label", "id_1"])
    assert batch.to_pydict() == {"label": [1, 0], "id_1": [3, 4]}


def test_a_line_that_has_no_label_is_read_as_such(tmp_path: Path) -> None:
    (batch,) = written(tmp_path, "3:1 5:2\n1 4:1 6:1\n7:1 8:1\n").batches(["id_1", "ids", "label"])
    assert batch.column("label").to_numpy(zero_copy_only=False).tolist() == pytest.approx(
        [np.nan, 1, np.nan], nan_ok=True
    )
    assert batch.column("ids").to_pylist() == [[3, 5], [4, 6], [7, 8]]
    assert batch.column("id_1").to_pylist() == [3, 4, 7]


def test_a_wrong_label_is_named_by_its_own_row_where_others_have_none(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match="row 2: expected a number as label, got 'yes'"):
        list(written(tmp_path, "3:1\n4:1\nyes 4:1\n").batches(["label"]))


def test_a_long_file_is_read_in_pieces_of_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsvm, "_PIECE_BYTES", 1000)
    ids = np.random.default_rng(0).integers(0, 10**6, (500, 4))
    file = written(tmp_path, "\n".join("1 " + " ".join(f"{i}:1" for i in row) for row in ids))
    batches = list(file.batches(["id_1", "id_2", "id_3", "id_4"]))
    assert len(batches) > 5
    assert file.num_rows == 500
    read = [np.stack([c.to_numpy() for c in batch.columns], axis=1) for batch in batches]
    assert np.array_equal(np.concatenate(read), ids)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 4:1 5", "expected index:value, got '5'"),
        ("0 x:1 5:1", "expected a whole number as index, got 'x'"),
        ("0 4:1 99999999999999999999:1", "expected a whole number as index, got '99999999999999999999'"),
        ("0 4:1 5:high", "expected a number as value, got 'high'"),
        ("yes 4:1 5:1", "expected a number as label, got 'yes'"),
        ("0 4:1 5:1 6:1", "has 3 entries where the first row has 2"),
    ],
)
def test_a_line_of_another_form_is_named_with_its_row(
    tmp_path: Path, line: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsvm, "_PIECE_BYTES", 100)
    file = written(tmp_path, "1 4:1 5:1\n" * 40 + line + "\n" + "1 4:1 5:1\n")
    with pytest.raises(ExamplesError) as caught:
        list(file.batches(["label", "id_1"]))
    assert caught.value.row == 40
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match="absent"):
        LibsvmFile(tmp_path / "absent.libfm")
