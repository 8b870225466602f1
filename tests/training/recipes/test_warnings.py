from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.training.recipes.small_runs import run
from tests.training.tables import examples_table, negatives_thinned, with_column, write


def test_scores_that_say_less_than_one_number_are_warned_of_unless_calibrated(tmp_path: Path) -> None:
    write(tmp_path, examples_table(3000))
    worse = {"model": "lr", "model_config": {}, "epochs": 1, "learning_rate": 1e-9}
    half = run(tmp_path, name="half", start_at_base_rate=False, **worse).record.warnings
    assert any(line.startswith("validation rows of buy are ranked no better than by chance") for line in half)
    said = [warning for warning in half if warning.startswith("scores")]
    assert [warning.partition(":")[0] for warning in said] == [
        "scores of buy are worse probabilities than one number for all rows "
        "(0.349, the training rows' share of positives)"
    ]
    assert "log loss 0.6931 on validation rows, not 0.6" in said[0]
    mended = run(tmp_path, name="mended", start_at_base_rate=False, calibration="platt", **worse)
    assert not [warning for warning in mended.record.warnings if warning.startswith("scores")]
    good = run(tmp_path, name="good", model="dnn", model_config={}, epochs=2).record.warnings
    assert not [warning for warning in good if "worse probabilities" in warning]


def test_scores_that_are_off_as_a_whole_are_warned_of(tmp_path: Path) -> None:
    """Five in six negatives of the training rows are gone, as is done to save work."""
    write(tmp_path, negatives_thinned(examples_table(3000)))
    said = run(tmp_path, model="dnn", model_config={}, epochs=3, learning_rate=0.01).record.warnings
    assert any(line.startswith("scores of buy are off as a whole: their mean on") for line in said), said
    said = run(
        tmp_path, name="mended", model="dnn", epochs=3, learning_rate=0.01, calibration="isotonic"
    ).record.warnings
    assert not any("scores of" in line for line in said)


def test_a_field_that_gives_the_label_away_is_named(tmp_path: Path) -> None:
    table = examples_table()
    leak = table["clicked"].to_numpy() + np.random.default_rng(0).normal(size=1200) * 0.05
    write(tmp_path, with_column(table, "price", leak.tolist()))
    said = run(
        tmp_path, epochs=1, model="fm", model_config={}
    ).record.warnings  # whatever the model made of it
    (line,) = (line for line in said if "too good to be true" in line)
    assert line.startswith("field 'price' alone ranks validation rows of click with an AUC of 1.0000")


def test_rows_that_are_in_two_parts_are_warned_of(tmp_path: Path) -> None:
    table = examples_table(600)
    twice = with_column(pa.concat_tables([table, table]), "split", ["train"] * 600 + ["valid", "test"] * 300)
    write(tmp_path, twice)
    result = run(tmp_path, epochs=1)
    assert result.record.seen == {"valid": 1.0, "test": 1.0}
    said = [line for line in result.record.warnings if "alike" in line]
    assert said[0].startswith("100% of the valid rows are alike to a training row in all fields and labels")
    assert len(said) == 2, "no test row is alike to a validation row"
    (tmp_path / "once").mkdir()
    write(tmp_path / "once", table)
    assert run(tmp_path / "once", epochs=1).record.seen == {"valid": 0.0, "test": 0.0}
