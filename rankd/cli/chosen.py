"""Options that several verbs share: which examples, and settings from presets and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankd.cli.screen import download_bar, fail, split_pair, wants
from rankd_contract.errors import YamlError
from rankd_contract.strict_yaml import read_yaml

if TYPE_CHECKING:
    from rankd_training.trials.trial import Source

__all__ = [
    "SCHEMA_FILE",
    "DataName",
    "ExamplesFile",
    "Given",
    "GroupColumn",
    "SchemaFile",
    "SetPairs",
    "SettingsFile",
    "SplitShares",
    "SplitTime",
    "check_there",
    "given",
    "merged",
    "seeds_of",
    "settings_files",
    "settings_for",
    "settings_of",
]

SCHEMA_FILE = "schema.yaml"
DataName = Annotated[str | None, typer.Option(help="Named data set (`rankd data list`).")]
ExamplesFile = Annotated[
    Path | None, typer.Option(help="Or your own examples: a Parquet or libsvm file, or a folder of them.")
]
SchemaFile = Annotated[
    Path | None, typer.Option(help="Schema file of your examples, or another one for a named data set.")
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        help="Column that says whose row it is, for the AUC per user; default: the user view's key."
    ),
]
SplitShares = Annotated[
    str | None,
    typer.Option("--split", help="Deal out rows by shares such as 80/10/10; default: their column `split`."),
]
SplitTime = Annotated[
    str | None, typer.Option("--split-time", help="Column by which the latest rows are the test part.")
]
SettingsFile = Annotated[
    list[Path] | None,
    typer.Option(
        "--settings",
        help="YAML file of settings by model, as `rankd tune` writes; may be given several times.",
    ),
]

SetPairs = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other setting, such as learning_rate=0.002 or model.heads=2."),
]


@dataclass(frozen=True, slots=True)
class Given:
    """Examples with a name for people, and the words that name them on a command line without paths."""

    name: str
    source: Source
    words: tuple[str, ...]
    data: str | None


def check_there(*paths: Path) -> None:
    """Leave where a file that was named does not exist."""
    for path in paths:
        if not path.exists():
            fail(f"{path}: there is no such file", 2)


def given(
    data: str | None,
    examples: Path | None,
    schema: Path | None,
    root: Path | None,
    reading: dict[str, str | None],
) -> Given:
    """Find the examples that were asked for, downloading a named data set where needed.

    `reading` has the options that say how rows are read, by the setting's name.
    """
    if examples is not None and schema is None and (examples / SCHEMA_FILE).is_file():
        schema = examples / SCHEMA_FILE
    if (data is None) == (examples is None) or (examples is not None and schema is None):
        fail("give --data NAME, or --examples FILE together with --schema FILE", 2)
    with wants():
        from rankd_training.data import catalog
        from rankd_training.errors import DataError
        from rankd_training.trials.trial import Source

    asked = {name: value for name, value in reading.items() if value is not None}
    more = tuple(word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value))
    if data is not None:
        with wants(DataError), download_bar() as progress:
            folder = catalog.get(data, root=root, progress=progress)
            own = catalog.describe(data).schema
        if schema is not None:
            check_there(schema)
            more = ("--schema", schema.name, *more)
        source = Source(folder / "examples.parquet", schema or own, asked)
        return Given(data, source, ("--data", data, *more), data)
    assert examples is not None
    assert schema is not None
    check_there(examples, schema)
    words = ("--examples", examples.name, "--schema", schema.name, *more)
    return Given(examples.stem, Source(examples, schema, asked), words, None)


def settings_files(files: list[Path]) -> list[tuple[Path, dict[str, dict[str, Any]]]]:
    """Read files of settings by model, refusing names that no model has."""
    from rankd_training.errors import SettingError
    from rankd_training.settings_file import read_settings_file
    from rankd_training.trials.trial import check_names

    read = []
    for path in files:
        try:
            found = read_settings_file(path)
        except SettingError as error:
            fail(str(error), 2)
        try:
            check_names(list(found))
        except SettingError as error:
            fail(f"{path}: {error}", 2)
        read.append((path, found))
    return read


def settings_for(
    data: str | None,
    model: str,
    files: list[tuple[Path, dict[str, dict[str, Any]]]],
    pairs: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Return a model's settings and where they come from: pairs over later files over earlier over preset."""
    from rankd_training.presets import preset

    settings = preset(data, model)
    origins = ["preset"] if settings else []
    for path, by_model in files:
        found = by_model.get(model)
        if found is not None:
            settings, origins = merged(settings, found), [*origins, path.name]
    if pairs:
        settings, origins = merged(settings, dict(pairs)), [*origins, "--set"]
    return settings, " + ".join(origins) or "defaults"


def settings_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Read `key=value` pairs, values as YAML; `model.key` goes into the model's own settings."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, text = split_pair("--set", pair, "learning_rate=0.002 or model.heads=2")
        try:
            value = read_yaml(text)
        except YamlError as error:
            fail(f"--set {key}: {error}", 2)
        if isinstance(value, str) and text[:1] in "-.0123456789":
            with suppress(ValueError):
                value = float(text)  # as in `1e-3`, which YAML reads as text
        if key.startswith("model."):
            settings.setdefault("model_config", {})[key.removeprefix("model.")] = value
        else:
            settings[key] = value
    return settings


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay settings over others, the model's own one by one."""
    configs = {**below.get("model_config", {}), **above.get("model_config", {})}
    return {**below, **above, **({"model_config": configs} if configs else {})}


def seeds_of(text: str) -> list[int]:
    """Read `5` as the seeds 1 to 5, and `3,7` as these two."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        fail(f"--seeds {text}: expected how many, such as 5, or which, such as 1,2,3", 2)
    seeds = numbers if len(numbers) > 1 else list(range(1, numbers[0] + 1))
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        fail(f"--seeds {text}: expected at least one seed, none twice, none below 0", 2)
    return seeds
