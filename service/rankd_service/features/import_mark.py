"""How far an import has come, kept in the store beside its rows: an import that was cut short goes on there.

The mark claims rows only once the store has acknowledged them, and shares their fate: a store that loses its
rows loses it too. There is one a view and fingerprint, so that whatever else is imported there voids it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rankd_contract.keys import key_prefix
from rankd_contract.schema import FeatureSchema, FeatureView
from rankd_service.errors import StartupFailed, StoreErrorKind, StoreUnavailable
from rankd_service.features.bulk_store import BulkStore

__all__ = ["ImportMark", "file_digest"]

_KEPT_MS = 7 * 86_400_000


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file. Raises StartupFailed where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StartupFailed(f"{path}: cannot be read: {error}") from error


class ImportMark:
    """The mark of one file's import. Where the store lets its user read or write none, there is none."""

    def __init__(
        self, store: BulkStore, namespace: str, schema: FeatureSchema, view: FeatureView, what: str
    ) -> None:
        """Name the mark; `what` must be the same for an import to go on, such as the file's digest."""
        # Two colons: no row's key has them there, because no view is without a name.
        first, *rest = key_prefix(namespace, schema, view).split(":")
        self.key = f"{first}::import:{':'.join(rest)}".removesuffix(":")
        self._store, self._what, self._usable = store, what, True

    def rows_done(self) -> int:
        """Return how many rows of this very file were written before, from the first on."""
        try:
            value = self._store.get(self.key)
        except StoreUnavailable as failure:
            self._allow(failure)
            return 0
        try:
            tree = json.loads(value or b"{}")
            return int(tree["rows"]) if tree["what"] == self._what else 0
        except (ValueError, KeyError, TypeError):
            return 0

    def note(self, rows: int) -> None:
        """Claim that the first rows are written; they must have been acknowledged."""
        self._set(json.dumps({"what": self._what, "rows": rows}).encode(), _KEPT_MS)

    def clear(self) -> None:
        """Claim nothing any more."""
        if not self._usable:
            return
        try:
            self._store.delete(self.key)
        except StoreUnavailable as failure:
            self._allow(failure)
            self._store.set(self.key, b"{}", 1)  # it may not delete, but did write

    def _set(self, value: bytes, kept_ms: int) -> None:
        if not self._usable:
            return
        try:
            self._store.set(self.key, value, kept_ms)
        except StoreUnavailable as failure:
            self._allow(failure)

    def _allow(self, failure: StoreUnavailable) -> None:
        if failure.kind is not StoreErrorKind.AUTH:
            raise failure
        self._usable = False
