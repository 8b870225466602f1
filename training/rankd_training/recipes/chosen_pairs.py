"""What a search chose, for people and for other models: a page of shares, and the schema with crosses.

Pairs that were memorised for sure become crosses of the schema, which every model trains and serves; what is
factorised any model of interactions does in its own way. A search that has hardly begun puts a pair wherever
chance has it, at shares near a third: OptInter is trained with that as published, but a cross costs a table,
so one is made only where memorising has more than the other two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from rankd_contract.errors import SchemaError
from rankd_contract.schema import Cross, FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_contract.strict_yaml import read_yaml
from rankd_training.layers.pairs import MEMORISE, METHODS
from rankd_training.models.optinter import OptInter
from rankd_training.runs.checkpoint import SCHEMA

__all__ = ["CROSSED_SCHEMA", "PAIRS", "leave_choice", "with_crosses"]

PAIRS, CROSSED_SCHEMA = "pairs.yaml", "schema-with-crosses.yaml"
SURE = 0.5
_LONGEST_NAME = 64
_PAIRS_HEAD = """\
# What the search found for each pair of fields, and the shares of its mixture at the search's best epoch:
# memorise is a table with a row for each combination, factorise the product of two vectors, naive nothing.
# A pair stands under its largest share, the surest first; shares near a third are no preference at all, and
# more epochs or a larger model.cooling let the search decide. Pairs memorised by more than a half are the
# crosses of {schema}.
"""


def leave_choice(folder: Path, searched: OptInter) -> None:
    """Write what a search chose into the folder of the run that was trained with it."""
    by_method: dict[str, dict[str, dict[str, float]]] = {method: {} for method in METHODS}
    chosen = dict(text.rsplit("=", 1) for text in searched.chosen())
    for pair, shares in sorted(searched.shares().items(), key=lambda item: -max(item[1].values())):
        rounded = {method: round(share, 4) for method, share in shares.items()}
        by_method[chosen.get(pair, METHODS[-1])][pair] = rounded
    page = _PAIRS_HEAD.format(schema=CROSSED_SCHEMA) + _yaml(by_method)
    (folder / PAIRS).write_text(page, encoding="utf-8")
    text = (folder / SCHEMA).read_text(encoding="utf-8")
    sure = [pair for pair, shares in by_method[MEMORISE].items() if shares[MEMORISE] > SURE]
    crossed = with_crosses(text, sure, searched.config.cross_rows)
    (folder / CROSSED_SCHEMA).write_text(crossed, encoding="utf-8")


def with_crosses(text: str, pairs: list[str], rows: int) -> str:
    """Return a schema's text with pairs as crosses besides those that it has.

    Args:
        text: of the schema; comments stay where its crosses can be written at its end.
        pairs: of the schema's fields, as `left*right`; one that is crossed already is left out.
        rows: of each cross.
    """
    schema = parse_schema(text)
    taken = {*schema.fields, *(cross.name for cross in schema.crosses)}
    crossed = {frozenset(cross.of) for cross in schema.crosses}
    fresh = []
    for pair in pairs:
        left, right = pair.split("*")
        if frozenset((left, right)) not in crossed:
            fresh.append(Cross(_name(left, right, taken), (left, right), rows))
            taken.add(fresh[-1].name)
    if not fresh:
        return text
    wanted = replace(schema, crosses=(*schema.crosses, *fresh))
    trees = [{"name": cross.name, "of": list(cross.of), "rows": cross.rows} for cross in fresh]
    longer = text.rstrip() + "\n" + _yaml({"crosses": trees})
    if _reads_as(longer, wanted):
        return longer
    tree = read_yaml(text)  # a file of JSON, or one that has crosses already
    return _yaml({**tree, "crosses": [*tree.get("crosses", []), *trees]})


def _name(left: str, right: str, taken: Set[str]) -> str:
    plain = f"{left}_x_{right}"
    if plain not in taken and len(plain) <= _LONGEST_NAME:
        return plain
    return next(name for n in count(1) if (name := f"cross_{n}") not in taken)


def _reads_as(text: str, wanted: FeatureSchema) -> bool:
    try:
        return parse_schema(text) == wanted
    except SchemaError:
        return False


def _yaml(tree: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(
        dict(tree), sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
    return text
