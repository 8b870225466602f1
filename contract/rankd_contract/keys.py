"""Where a packed row lives in the store, and the hash that ties it to its entity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankd_contract.hashing import Strings, hash_strings, salt
from rankd_contract.schema import FeatureSchema, FeatureView

__all__ = ["MAX_ID_BYTES", "entity_hashes", "key_prefix"]

MAX_ID_BYTES = 128


def key_prefix(namespace: str, schema: FeatureSchema, view: FeatureView) -> str:
    """Return what stands before an entity id: `{namespace}:{view}:{8 hex digits of the row fingerprint}:`."""
    return f"{namespace}:{view.name}:{schema.row_fingerprint(view) >> 32:08x}:"


def entity_hashes(view: FeatureView, ids: Sequence[str]) -> NDArray[np.uint64]:
    """Hash entity ids for a row's header -> uint64 [n]; salted by entity, so user 7 is not item 7."""
    return hash_strings(Strings.from_list(ids), salt(view.entity.value))
