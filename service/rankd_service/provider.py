"""Where graphs are asked to run. Apart from the other settings: a trial process needs this one alone."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ProviderChoice"]


class ProviderChoice(StrEnum):
    """Where graphs run."""

    CPU = "cpu"
    PREFER_CUDA = "prefer_cuda"
    REQUIRE_CUDA = "require_cuda"
