"""One connection to a store's server, and one exchange on it at a time.

Nothing is sent ahead of an exchange's replies: a reply too many, or one left over, can then never be taken
for the next one's, and a huge value holds up nobody else. Whoever asks is called back exactly once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

__all__ = ["Done", "Link", "OpenLink"]

Done = Callable[[Any, Exception | None], None]
"""Gets the reply and None, or None and why there is none.

Where several replies were asked for the reply is their list; an error the server answered with stands in it.
"""


class Link(Protocol):
    """A connection that was opened, and is used by one exchange after the other."""

    @property
    def open(self) -> bool:
        """Whether another exchange can be begun."""

    def ask(self, commands: bytes, done: Done, replies: int = 1) -> None:
        """Send packed commands that have so many replies; `done` is called once, later."""

    def abort(self, reason: Exception) -> None:
        """End the connection; an exchange under way is done, with this reason."""

    async def close(self) -> None:
        """End the connection and wait until it is gone."""


OpenLink = Callable[[], Awaitable[Link]]
"""Connects and says hello. Raises one of `redis_connection.FAILURES`."""
