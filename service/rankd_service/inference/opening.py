"""Which of a bundle's graphs is loaded here, and how it is run."""

from __future__ import annotations

import logging

from rankd_contract.bundle import Bundle
from rankd_service.errors import BundleRefused
from rankd_service.inference.buckets import Bucketed
from rankd_service.inference.captured import CAPTURE, CapturedRuns
from rankd_service.inference.session import CUDA, GraphSession
from rankd_service.provider import ProviderChoice
from rankd_service.settings import InferenceSettings

__all__ = ["open_session"]

_log = logging.getLogger(__name__)


def open_session(bundle: Bundle, settings: InferenceSettings) -> tuple[GraphSession | Bucketed, float]:
    """Load the graph of a bundle that is for here -> its session, and how far recorded scores may lie off.

    Raises BundleRefused.
    """
    threads, provider, cuda = settings.threads, settings.provider, bundle.manifest.cuda
    if provider is not ProviderChoice.CPU and cuda is not None:
        try:
            session = GraphSession(bundle.cuda_graph, threads, provider, CAPTURE)
            if session.provider == CUDA:
                return Bucketed(CapturedRuns(session, cuda.buckets, "cuda"), cuda), cuda.golden_tolerance
        except BundleRefused as refused:
            if provider is ProviderChoice.REQUIRE_CUDA:
                raise
            _log.warning("%s; the portable graph is run in its place", refused)
    return GraphSession(bundle.graph, threads, provider), bundle.manifest.golden_tolerance
