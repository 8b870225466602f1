"""docs/settings.md says what settings.py does.

`python -m tests.house.test_settings_page` writes its tables.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.core
import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rankd_service.errors import StartupFailed
from rankd_service.settings import Settings
from rankd_service.settings_sources import load_settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
MADE = "<!-- From here on made by `python -m tests.house.test_settings_page`. -->\n"
UNITS = {"s": "seconds", "ms": "milliseconds", "mb": "MiB", "bytes": "bytes"}
TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "object": "mapping",
    "array": "list",
}
HEAD = "| key | environment | type | default | allowed | unit | meaning |\n|---|---|---|---|---|---|---|\n"


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        yield name, field.annotation


def tables() -> str:
    """Every section as a heading, its docstring and a table."""
    parts = []
    for name, section in sections():
        schema = section.model_json_schema()
        rows = [
            row(name, key, field, resolved(schema["properties"][key], schema))
            for key, field in section.model_fields.items()
        ]
        parts.append(f"\n### {name}\n\n{inspect.getdoc(section)}\n\n{HEAD}{''.join(rows)}")
    return "".join(parts)


def resolved(form: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a key, with what it refers to and without its null."""
    for one in form.get("anyOf", []):
        if one["type"] != "null":
            form = {**form, **one}
    return {**form, **schema["$defs"][form["$ref"].rpartition("/")[2]]} if "$ref" in form else form


def row(section: str, key: str, field: FieldInfo, form: dict[str, Any]) -> str:
    variable = f"RANKD_{section}__{key}".upper()
    kind = "path" if form.get("format") == "path" else TYPES[form["type"]]
    unit = UNITS.get(key.rpartition("_")[2], "")
    cells = (f"`{section}.{key}`", f"`{variable}`", kind, default(field), allowed(form), unit)
    return f"| {' | '.join(cells)} | {field.description} |\n"


def default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "none" if value is None else f"`{value}`"


def allowed(form: dict[str, Any]) -> str:
    if "enum" in form:
        return ", ".join(f"`{value}`" for value in form["enum"])
    if "pattern" in form:
        return f"`{form['pattern']}`"
    bounds = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}"}
    return ", ".join(words.format(form[bound]) for bound, words in bounds.items() if bound in form)


def written() -> str:
    return PAGE.read_text(encoding="utf-8").partition(MADE)[0]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


def test_every_setting_is_on_the_page_as_it_is_in_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == written() + MADE + tables(), (
        "docs/settings.md is out of date: run python -m tests.house.test_settings_page"
    )


def test_every_setting_says_what_it_means() -> None:
    fields = [
        (name, key, field) for name, section in sections() for key, field in section.model_fields.items()
    ]
    assert [f"{name}.{key}" for name, key, field in fields if not field.description] == []


def test_every_key_and_variable_the_text_names_exists() -> None:
    known = {f"{name}.{key}" for name, section in sections() for key in section.model_fields}
    variables = {f"RANKD_{key.replace('.', '__')}".upper() for key in known} | {"RANKD_SECTION__KEY"}
    prose = re.sub(r"^(\| .*|```yaml.*?```)$", "", written(), flags=re.MULTILINE | re.DOTALL)
    dotted = {k for k in re.findall(r"`(\w+\.\w+)`", prose) if k.partition(".")[0] in Settings.model_fields}
    assert dotted
    assert dotted <= known
    assert set(re.findall(r"RANKD_[A-Z]+__\w+", prose)) <= variables


def test_the_example_loads_and_says_only_what_differs(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", written(), re.MULTILINE | re.DOTALL)
    config = tmp_path / "rankd.yaml"
    config.write_text(example)
    loaded = load_settings(config)
    for name, _ in sections():
        assert getattr(loaded, name) != getattr(Settings(), name), name


@pytest.mark.parametrize("variable", re.findall(r"`(RANKD_[A-Z_]+='.*?')`", written()))
def test_a_variable_that_the_text_shows_is_read(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, value = variable.partition("=")
    monkeypatch.setenv(name, value.strip("'"))
    assert load_settings() != Settings()


@pytest.mark.parametrize(
    ("mistake", "said"), re.findall(r"^\| `(.+?)` \| ``(.+?)`` \|$", written(), re.MULTILINE)
)
def test_a_mistake_that_the_text_shows_is_refused_in_these_words(
    mistake: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: Path | None = None
    if mistake.startswith("RANKD_"):
        monkeypatch.setenv(*mistake.split("=", 1))
    else:
        config = tmp_path / "rankd.yaml"
        config.write_text(mistake)
    with pytest.raises(StartupFailed) as refused:
        load_settings(config)
    assert str(refused.value) == said


def test_every_option_the_text_names_is_one_of_the_command() -> None:
    from rankd.cli import app

    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    known = {option for parameter in group.commands["serve"].params for option in parameter.opts}
    named = set(re.findall(r"--[a-z-]+[a-z]", written().replace("<!--", "")))
    assert named
    assert named <= known


if __name__ == "__main__":
    PAGE.write_text(written() + MADE + tables(), encoding="utf-8")
