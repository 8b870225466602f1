"""Sends away at the door what the queue would make late: from the head alone, before a task or a body exists.

Under three times the load it can carry, a process refuses two requests for each one it answers. Refused here
one costs a tenth of what it costs inside, and that is what keeps the answered ones answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from rankd_service.admission.limiter import Limiter
from rankd_service.errors import InvalidRequest, RejectReason
from rankd_service.memory import MemoryWatch, Pressure
from rankd_service.settings import LimitSettings
from rankd_service.surfaces.errors import refusal, refusal_body
from rankd_service.surfaces.limits import deadline_s, header_deadline_ms, header_partition, request_id
from rankd_service.telemetry import UNKNOWN_MODEL, Telemetry, Transport

__all__ = ["Door"]

_RANKING = b"/v1/rank/"
_HEAD = (
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: {wait}\r\n"
    "x-request-id: {id}\r\ncontent-length: {length}\r\n\r\n"
)


class Door:
    """Looks at the heads of ranking requests. What is odd about one is for those inside to object to."""

    def __init__(
        self, limiter: Limiter, limits: LimitSettings, telemetry: Telemetry, memory: MemoryWatch
    ) -> None:
        """Keep the parts."""
        self._limiter, self._limits, self._memory = limiter, limits, memory
        self._metrics = telemetry.model(UNKNOWN_MODEL)
        self._let_in = 0  # in this turn of the loop: their tasks have not begun, so the queue lacks them

    def __call__(
        self, method: bytes, path: bytes, headers: Mapping[bytes, bytes], waited_s: float
    ) -> bytes | None:
        """Return the whole answer to a request that is not let in, or None.

        `waited_s` of its time may have passed before anybody heard it.
        """
        short = self.is_short()
        if not (short or self._limiter.waiting) or method != b"POST" or not path.startswith(_RANKING):
            return None
        try:
            allowed_s, _ = deadline_s(header_deadline_ms(headers), None, self._limits)
            left_s = allowed_s - waited_s
            partition = header_partition(headers)
            why_not = (
                self._limiter.unavailable(RejectReason.MEMORY, "this process has used up its memory")
                if short
                else self._limiter.refusal(partition, left_s, ahead=self._let_in)
            )
        except InvalidRequest:
            return None
        if why_not is None:
            self._note_let_in()
            return None
        self._metrics.rejected(why_not.reason)
        self._metrics.refused(Transport.HTTP, "503")
        what, asked_id = refusal(why_not), request_id(headers)
        body = refusal_body(what, asked_id)
        wait = dict(what.headers)["Retry-After"]
        return _HEAD.format(wait=wait, id=asked_id, length=len(body)).encode() + body

    def is_short(self) -> bool:
        """Whether there is no memory for a body."""
        return self._memory.pressure is Pressure.CRITICAL

    def _note_let_in(self) -> None:
        if not self._let_in:
            # This comes before the task of whoever is let in now, and after all other heads of this turn.
            asyncio.get_running_loop().call_soon(self._turn_over)
        self._let_in += 1

    def _turn_over(self) -> None:
        self._let_in = 0
