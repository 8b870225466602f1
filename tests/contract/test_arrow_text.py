from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from rankd_contract.arrow_text import misencoded

N = 50


def text(row: int | None) -> Any:
    """N texts; the one at `row` is not UTF-8."""
    values = [b"text %d" % k if k != row else b"K\xf6ln" for k in range(N)]
    return pa.Array.from_buffers(pa.string(), N, pa.array(values, pa.binary()).buffers())


FORMS: dict[str, Callable[[int | None], Any]] = {
    "text": text,
    "dictionary": lambda row: text(row).dictionary_encode(),
    "lists": lambda row: pa.ListArray.from_arrays(list(range(N + 1)), text(row)),
}


@pytest.mark.parametrize("row", [0, 17, N - 1])
@pytest.mark.parametrize("form", list(FORMS))
def test_the_row_of_the_first_text_that_is_not_utf_8_is_found(form: str, row: int) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(range(N)), FORMS[form](row)], names=["id", "title"])
    assert misencoded(batch) == ("title", row)
    assert misencoded(batch.slice(row)) == ("title", 0)


@pytest.mark.parametrize("form", list(FORMS))
def test_text_that_is_utf_8_is_no_fault(form: str) -> None:
    batch = pa.RecordBatch.from_arrays([FORMS[form](None)], names=["title"])
    assert misencoded(batch) is None
