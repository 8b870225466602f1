"""The socket the service listens on."""

from __future__ import annotations

import socket

from rankd_service.errors import StartupFailed

__all__ = ["listen"]

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address; port 0 takes any free one. Raises StartupFailed, saying which and why not."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # Python adds "(while attempting to bind on address ...)", which says the address again.
        reason = (error.strerror or str(error)).partition(" (while attempting")[0]
        raise StartupFailed(
            f"cannot listen on {host} port {port}: {reason}; free the port, or choose another with --port "
            "(server.port in a settings file)"
        ) from error
