"""The verbs that judge, compare, search and explain, each from its command line to its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from rankd.cli import app
from rankd_training.data import catalog
from tests.rankd.judged import rankd, refused, rows
from tests.training.tables import examples_table


def test_evaluate_gives_the_runs_own_metrics_and_slices(place: Path) -> None:
    asked = (
        "evaluate",
        place / "run",
        "--examples",
        place / "examples.parquet",
        "--by",
        "hour",
        "--resamples",
        "5",
    )
    found = json.loads(rankd(*asked, "--json"))
    written = json.loads((place / "run" / "metrics.json").read_text())
    assert found["trained_on_this_file"]
    assert found["metrics"]["click"]["auc"]["value"] == pytest.approx(written["test"]["click"]["auc"])
    assert set(found["slices"]) == {"training rows of the user", "hour"}
    text = rankd(*asked)
    assert "95 % interval" in text
    assert "by hour" in text
    said = CliRunner().invoke(app, [*map(str, asked), "--by", "hours"]).stderr
    assert "'hours'; did you mean 'hour'? fields:" in said


def test_rows_of_another_file_are_judged_whole_unless_they_say_what_they_are_for(
    place: Path, tmp_path: Path
) -> None:
    table = examples_table(seed=9)
    pq.write_table(table.drop(["split"]).slice(0, 300), tmp_path / "new.parquet")
    judged = ("evaluate", place / "run", "--resamples", "5")
    found = json.loads(rankd(*judged, "--examples", tmp_path / "new.parquet", "--json"))
    assert (found["split"], found["rows"], found["trained_on_this_file"]) == ("all", 300, False)
    assert found["slices"] == {}, "nothing in them was learned from"
    dealt = CliRunner().invoke(
        app, [*map(str, judged), "--examples", str(tmp_path / "new.parquet"), "--split", "valid"]
    )
    assert "note: not the file that the run was trained on; 0.0% of these rows are alike" in dealt.stderr
    assert "they were dealt out anew" in dealt.stderr
    pq.write_table(examples_table().drop(["split"]), tmp_path / "known.parquet")
    known = CliRunner().invoke(app, [*map(str, judged), "--examples", str(tmp_path / "known.parquet")])
    assert "warning: not the file that the run was trained on; 66.7% of these rows are alike" in known.stderr
    assert "so the numbers say too much" in known.stderr
    only = table.filter(np.array(table["split"].to_pylist()) == "test")
    pq.write_table(only, tmp_path / "test.parquet")
    found = json.loads(rankd(*judged, "--examples", tmp_path / "test.parquet", "--json"))
    assert (found["split"], found["rows"]) == ("test", only.num_rows)
    problem = refused(*judged, "--examples", tmp_path / "test.parquet", "--split", "valid", code=1)
    assert f"has no row of 'valid' (column 'split'), but {only.num_rows} of test; `all`" in problem


def test_compare_leaves_a_table_of_other_models_alone_and_hands_on_warnings(
    place: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "short.yaml"
    settings.write_text("dnn: {epochs: 3, learning_rate: 3e-3, batch_size: 64}\n")
    asked = ("compare", *rows(place), "--seeds", "1", "--settings", settings, "--home", tmp_path)
    asked += ("--resamples", "5")
    rankd(*asked, "--models", "dnn,popularity")
    page = tmp_path / "results" / "examples.md"
    assert "## Warnings" in page.read_text()
    assert "dnn: the last of 3 epochs was the best so far" in page.read_text()
    said = CliRunner().invoke(app, [*map(str, asked), "--models", "dnn,popularity"])
    assert "training ended too early" in " ".join(said.stderr.split())
    before = page.read_bytes()
    assert "has popularity too, which would be lost; choose another --name" in refused(
        *asked, "--models", "dnn"
    )
    more = ("compare", *rows(place), "--seeds", "2,3", "--settings", settings, "--home", tmp_path)
    fewer = refused(*more, "--models", "dnn,popularity")
    assert "has seeds 1 too, which would be lost; choose another --name" in fewer
    assert page.read_bytes() == before
    rankd(*asked, "--models", "dnn", "--name", "alone")
    page.with_suffix(".json").write_text("[]")
    assert "is no table of `rankd compare`" in refused(*asked, "--models", "dnn")


def test_files_of_a_folder_may_differ_in_width_of_their_numbers(place: Path, tmp_path: Path) -> None:
    table, parts = examples_table(), tmp_path / "parts"
    parts.mkdir()
    at = table.schema.get_field_index("age")
    narrow = table.schema.field(at).with_type(pa.int32())
    pq.write_table(table.slice(0, 700), parts / "a.parquet")
    pq.write_table(table.slice(700).cast(table.schema.set(at, narrow)), parts / "b.parquet")
    given = ("--examples", parts)
    found = json.loads(rankd("evaluate", place / "run", *given, "--by", "age", "--resamples", "5", "--json"))
    assert len(found["slices"]["age"]["click"]) > 1
    schema = ("--schema", place / "schema.yaml")
    tune = ("tune", *given, *schema, "--model", "dnn", "--space", place / "space.yaml", "--trials", "1")
    assert json.loads(rankd(*tune, "--home", tmp_path, "--json"))["best"]["state"] == "done"
    rankd("schema", "infer", parts, "--label", "clicked", "-o", tmp_path / "new" / "schema.yaml")
    pq.write_table(table.slice(700).rename_columns(["clicked", *table.column_names[1:]]), parts / "c.parquet")
    for verb in (("schema", "infer", parts), ("train", *given, *schema)):
        assert "c.parquet, column 'clicked': 2 columns have this name" in refused(*verb, code=1)


def test_text_in_another_encoding_is_named_by_its_row(place: Path, tmp_path: Path) -> None:
    table = examples_table()
    tags: Any = table["tags"].combine_chunks()
    values = [text.encode() for text in tags.flatten().to_pylist()]
    values[801] = "Köln".encode("latin-1")
    wrong = pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())
    lists = pa.ListArray.from_arrays(tags.offsets, wrong)
    table = table.set_column(table.schema.get_field_index("tags"), "tags", lists)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=300)
    given = ("--examples", tmp_path / "rows.parquet")
    for verb in (
        ("schema", "infer", tmp_path / "rows.parquet", "--label", "clicked"),
        ("train", *given, "--schema", place / "schema.yaml", "--output", tmp_path / "run"),
        ("evaluate", place / "run", *given),
    ):
        assert "rows.parquet, column 'tags', row 802: expected text in UTF-8" in refused(*verb, code=1)


def test_evaluate_writes_what_was_said_of_each_row(place: Path) -> None:
    scores = place / "new" / "scores.parquet"
    examples = place / "examples.parquet"
    asked = ("evaluate", place / "run", "--examples", examples, "--resamples", "5", "--scores", scores)
    found = json.loads(rankd(*asked, "--json"))
    table = pq.read_table(scores).to_pydict()
    assert list(table) == ["row", "score_click", "label_click", "score_buy", "label_buy"]
    labels = pq.read_table(examples)["clicked"].to_pylist()
    assert table["label_click"] == [labels[row] for row in table["row"]]
    assert roc_auc_score(table["label_click"], table["score_click"]) == pytest.approx(
        found["metrics"]["click"]["auc"]["value"]
    )


def test_report_and_explain_write_their_pages(place: Path) -> None:
    examples = ("--examples", place / "examples.parquet")
    said = json.loads(
        rankd("report", place / "run", *examples, "--shuffles", "1", "--resamples", "5", "--json")
    )
    assert Path(said["report"]) == place / "run" / "report.html"
    assert "<svg" in Path(said["report"]).read_text()
    page = place / "why.html"
    asked = ("--top", "2", "--shuffles", "2", "--rows", "60", "--out", page)
    found = json.loads(rankd("explain", place / "run", *examples, *asked, "--json"))
    assert "<svg" in page.read_text()
    assert len(found["pairs"]) == 1
    assert json.loads((place / "why.json").read_text())["pairs"] == found["pairs"]
    assert (
        "named twice"
        in CliRunner()
        .invoke(app, [*map(str, ("explain", place / "run", *examples)), "--fields", "age,age"])
        .stderr
    )


def test_compare_writes_both_files_and_finds_its_trials_again(place: Path) -> None:
    asked = (
        "compare",
        *rows(place),
        "--models",
        "mlcc,lr",
        "--seeds",
        "2",
        "--settings",
        place / "settings.yaml",
    )
    asked += ("--home", place / "home", "--out", place / "results", "--name", "tiny", "--resamples", "5")
    found: dict[str, Any] = json.loads(rankd(*asked, "--json"))
    assert found["models"]["mlcc"]["settings"] == {"epochs": 1, "model_config": {"hidden": [8]}}
    assert found["models"]["lr"]["settings_from"] == "preset + settings.yaml"
    assert found["command"].startswith(
        "rankd compare --examples examples.parquet --schema schema.yaml --models"
    )
    assert str(place) not in json.dumps(found)
    assert json.loads((place / "results" / "tiny.json").read_text()) == found
    assert (place / "results" / "tiny.md").read_text().startswith("# Results on tiny\n")
    before = {path: path.stat().st_mtime_ns for path in (place / "home" / "trials").glob("*/trial.json")}
    assert len(before) == 4
    text = rankd(*asked)
    assert "2 seeds" in text
    assert "click: mlcc − lr = " in text
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_rows_that_name_no_split_are_dealt_out_for_all_models_alike(place: Path, tmp_path: Path) -> None:
    pq.write_table(examples_table().drop(["split"]), tmp_path / "rows.parquet")
    asked: tuple[str | Path, ...] = (
        "compare",
        "--examples",
        tmp_path / "rows.parquet",
        "--schema",
        place / "schema.yaml",
        "--json",
    )
    asked += (
        "--models",
        "lr,popularity",
        "--seeds",
        "1",
        "--settings",
        place / "settings.yaml",
        "--set",
        "batch_size=100",
        "--resamples",
        "5",
    )
    found = json.loads(rankd(*asked, "--split", "60/20/20", "--home", tmp_path))
    assert sum(found["rows"].values()) == 1200
    assert found["rows"]["train"] == pytest.approx(720, abs=60)
    assert "--split 60/20/20" in found["command"]
    assert "--set batch_size=100" in found["command"]
    assert found["models"]["lr"]["settings"]["batch_size"] == 100
    assert found["models"]["lr"]["settings_from"] == "preset + settings.yaml + --set"


def test_a_named_data_set_can_have_another_schema(place: Path, tmp_path: Path) -> None:
    data_sets = catalog.describe("movielens-synthetic")
    text = data_sets.schema.read_text().replace("name: movielens", "name: other", 1)
    (tmp_path / "other.yaml").write_text(text)
    asked: tuple[str | Path, ...] = (
        "compare",
        "--data",
        "movielens-synthetic",
        "--schema",
        tmp_path / "other.yaml",
        "--root",
        tmp_path,
    )
    asked += ("--models", "popularity", "--seeds", "1", "--resamples", "5", "--home", tmp_path, "--json")
    assert "--data movielens-synthetic --schema other.yaml" in json.loads(rankd(*asked))["command"]
    (trial,) = (tmp_path / "trials").glob("*/trial.json")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert json.loads(trial.read_text())["digests"]["schema"] == digest


def test_tune_writes_settings_that_train_and_compare_take(place: Path) -> None:
    best = place / "best.yaml"
    asked = (
        "tune",
        *rows(place),
        "--model",
        "mlcc",
        "--space",
        place / "space.yaml",
        "--home",
        place / "home",
    )
    asked += ("--settings", place / "settings.yaml", "--out", best)
    first = json.loads(rankd(*asked, "--trials", "2", "--json"))
    assert len(first["trials"]) == 2
    more = rankd(*asked, "--trials", "3")
    assert "the best of 3 trials" in more
    chosen = yaml.safe_load(best.read_text())["mlcc"]
    assert chosen["epochs"] == 1
    assert 1e-3 <= chosen["learning_rate"] <= 1e-2
    assert "test rows were not read" in best.read_text()
    run = place / "tuned"
    rankd("train", *rows(place), "--model", "mlcc", "--settings", best, "--output", run, "--report")
    record = json.loads((run / "run.json").read_text())
    assert record["settings"]["learning_rate"] == chosen["learning_rate"]
    assert record["settings"]["model_config"] == {"hidden": chosen["model.hidden"]}
    assert (run / "report.html").exists()
    wrong = CliRunner().invoke(
        app, [*map(str, ("train", *rows(place))), "--model", "lr", "--settings", str(best)]
    )
    assert wrong.exit_code == 2
    assert "has settings for mlcc, not for lr" in wrong.stderr


def test_scaling_writes_a_page_and_the_fits(place: Path) -> None:
    asked = (
        "scaling",
        *rows(place),
        "--axis",
        "model.heads=1,2,3,4",
        "--seeds",
        "1",
        "--home",
        place / "home",
    )
    found = json.loads(
        rankd(*asked, "--settings", place / "settings.yaml", "--out", place / "results", "--json")
    )
    assert found["axes"]["model.heads"]["values"] == [1, 2, 3, 4]
    page = place / "results" / "scaling-examples-mlcc.html"
    assert Path(found["report"]) == page
    assert page.with_suffix(".json").exists()
    assert str(place) not in page.read_text()
    assert not list((place / "home" / "withheld").glob("*.parquet"))


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        ("report no-such-run --examples x.parquet", 2, "no-such-run"),
        ("explain no-such-run --examples x --out y.html", 1, "rankd train"),
        ("compare --models lr", 2, "--data"),
        ("compare --models lr,lr --data movielens-synthetic", 2, "twice"),
        ("compare --models lr --examples x --schema y", 2, "no such file"),
        ("compare --models lr,nobody --data movielens-synthetic", 2, "mlcc"),
        ("train --model mcll --data movielens-synthetic", 2, "did you mean 'mlcc'?"),
        ("train --examples x.parquet --schema y.yaml", 2, "x.parquet: there is no such file"),
        ("train --data movielens-synthetic --split 80/10/20", 2, "percent that sum to 110"),
        ("train --data movielens-synthetic --set epoch=3", 2, "epochs"),
        ("compare --models lr --name ../x --data movielens-synthetic", 2, "the name of two files"),
        ("compare --models lr,mlc --data movielens-synthetic", 2, "did you mean 'mlcc'?"),
        ("compare --models lr --seeds 1,1 --data movielens-synthetic", 2, "--seeds"),
        ("compare --models lr --data no-such-data", 1, "movielens-100k"),
        (
            "tune --model lr --space nowhere.yaml --data movielens-synthetic",
            2,
            "nowhere.yaml: cannot be read",
        ),
        ("compare --models lr --examples x --schema y --set epochs", 2, "key=value"),
        ("scaling --model lr --data movielens-synthetic", 2, "--axis"),
        ("scaling --axis model.heads=1 --data movielens-synthetic", 2, "model.heads=1,2,4,8"),
    ],
)
def test_a_wrong_step_names_what_to_do_next(
    words: str, code: int, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == code, result.output
    assert hint in result.stderr


@pytest.mark.parametrize("what", ["examples.parquet", "schema.yaml", "space.yaml"])
def test_no_verb_writes_over_what_it_reads(what: str, place: Path) -> None:
    before = (place / what).read_bytes()
    tune = ("tune", "--model", "dnn", "--space", place / "space.yaml", *rows(place))
    assert "is read by this command" in refused(*tune, "--trials", "1", "--out", place / what)
    if what == "examples.parquet":
        judge = ("evaluate", place / "run", "--examples", place / what, "--scores", place / what)
        assert "is read by this command" in refused(*judge)
    assert (place / what).read_bytes() == before
