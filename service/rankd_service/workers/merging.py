"""How series of several workers become one."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Merge", "merging"]


class Merge(StrEnum):
    """How a family's series of several workers become one."""

    COUNT = "count"  # added up, ended workers included
    SUM = "sum"  # added up over those that live
    LEAST = "least"
    MOST = "most"
    WHOLE = "whole"  # each worker tells it of all


_MERGES = {
    "process_max_fds": Merge.LEAST,
    "process_start_time_seconds": Merge.LEAST,
    "rankd_memory_used_ratio": Merge.MOST,
    "rankd_model_fallback": Merge.MOST,
    "rankd_model_info": Merge.MOST,
    "rankd_model_nodes": Merge.MOST,
    "rankd_worker_connections": Merge.WHOLE,
    "rankd_worker_restarts": Merge.WHOLE,
    "rankd_workers": Merge.WHOLE,
}


def merging(family: str, kind: str) -> Merge:
    """Return how the family of that name and Prometheus type is merged over workers."""
    adding = Merge.COUNT if kind in {"counter", "histogram"} else Merge.SUM
    return _MERGES.get(family, adding)
