"""Serves as planned: in this process where one is enough, else with workers under a supervisor.

The supervisor imports neither numpy nor onnxruntime: workers are forks of a nursery.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time

from rankd_service.cores import cores
from rankd_service.features.embedded import EmbeddedStore
from rankd_service.listener import listen
from rankd_service.logs import log_to_stderr
from rankd_service.plan import Plan, plan
from rankd_service.settings import RedisSettings, Settings
from rankd_service.workers.board import Board
from rankd_service.workers.nursery import Nursery
from rankd_service.workers.supervisor import Supervisor

__all__ = ["serve"]

_log = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted. Raises StartupFailed."""
    log_to_stderr(settings.server.log_level.value.upper())
    planned = plan(settings, cores())
    if planned.objection:
        _log.warning("%s", planned.objection)
    if planned.workers > 1:
        _supervise(settings, planned)
        return
    from rankd_service.app import serve as serve_alone  # noqa: PLC0415  # a supervisor must not load it

    serve_alone(settings, planned)


def _supervise(settings: Settings, planned: Plan) -> None:
    listener = listen(settings.server.host, settings.server.port)
    listener.setblocking(False)
    store: EmbeddedStore | None = None
    if settings.redis.url is None:  # ours, so that it does not end with the worker that happened to start it
        store = EmbeddedStore.attach_or_start(settings.redis.embedded_folder, on_event=_log.warning)
        store.watch()
        redis = RedisSettings(**{**settings.redis.model_dump(), "url": store.url})
        settings = settings.model_copy(update={"redis": redis})
    page = Board.file(planned.workers)
    board, nursery = Board(page, planned.workers), Nursery(listener, page)
    supervisor = Supervisor(settings, planned, board, listener, nursery, time.monotonic)
    host, port = listener.getsockname()[:2]
    _log.info("listening", extra={"host": host, "port": port, **planned.figures})
    try:
        asyncio.run(supervisor.run())
    finally:
        nursery.close()
        os.close(page)
        listener.close()
        if store is not None:
            store.stop()
    _log.info("stopped")
