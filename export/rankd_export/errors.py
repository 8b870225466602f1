"""Everything export can object to.

ExportError
  + RunUnusable     the training run is incomplete or belongs to other code
  + GraphRefused    the exported graph breaks a rule that serving relies on
      + NoCudaKernel  a CUDA device would leave some of it to the host
  + ParityFailed    the graph's scores are not the model's
  + QualityLost     the graph is in fewer bits, and ranks worse than allowed
  + KeyUnusable     the file of a key to sign with holds none
  + TargetRefused   where a bundle is to be written for another server, there is something else
"""

from __future__ import annotations

__all__ = [
    "ExportError",
    "GraphRefused",
    "KeyUnusable",
    "NoCudaKernel",
    "ParityFailed",
    "QualityLost",
    "RunUnusable",
    "TargetRefused",
]


class ExportError(Exception):
    """Base of every error raised by this package."""


class RunUnusable(ExportError):
    """The folder of a training run cannot be exported."""


class GraphRefused(ExportError):
    """The graph was made, but it breaks a rule that serving relies on."""


class NoCudaKernel(GraphRefused):
    """A node of the CUDA graph has no CUDA kernel, or computes on the host what a kernel reads there."""


class ParityFailed(ExportError):
    """The graph was made, but its scores differ from the model's beyond the tolerance."""


class QualityLost(ExportError):
    """A graph in fewer bits loses more on validation rows than was allowed."""


class TargetRefused(ExportError):
    """What would be written is there already, or something else is."""


class KeyUnusable(ExportError):
    """What is named as a key to sign with is none."""
