"""Where a feature store is: one server, the primaries of a cluster, or whichever server sentinels name.

    redis://user:password@host:6379/0            one server; rediss:// for TLS, unix:// for a socket
    redis+cluster://user:password@host:7000,host:7001         some nodes of a cluster, which name the others
    redis+sentinel://user:password@host:26379,host:26379/service/0    sentinels, and what they call the server

With `rediss+` in place of `redis+` TLS is spoken to all of them. Options behind a `?` are redis-py's, for the
servers; `sentinel_username` and `sentinel_password` are said to the sentinels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from rankd_service.errors import StartupFailed

__all__ = ["NodeAddress", "StoreAddress", "StoreKind", "parse_address", "shown_url"]

_PORTS = {"cluster": 6379, "sentinel": 26379}
_HIGHEST_PORT = 65535
_FOR_SENTINELS = ("sentinel_username", "sentinel_password")


class StoreKind(StrEnum):
    """How many servers there are, and who knows where."""

    SERVER = "server"
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True, order=True)
class NodeAddress:
    """Host and port of one node or sentinel."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A parsed address. `nodes` are those it names; there are none where it is one server's."""

    url: str
    kind: StoreKind
    nodes: tuple[NodeAddress, ...] = ()
    service: str = ""
    database: str = "0"

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken."""
        return self.url.startswith("rediss")

    def of_node(self, node: NodeAddress) -> str:
        """Return the address of one server that speaks and is greeted as this address says."""
        _, hosts, _, options = _parts(self.url)
        secret, at, _ = hosts.rpartition("@")
        query = [(k, v) for k, v in parse_qsl(options, keep_blank_values=True) if k not in _FOR_SENTINELS]
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{secret}{at}{node}/{self.database}" + (f"?{urlencode(query)}" if query else "")

    def of_sentinel(self, node: NodeAddress) -> str:
        """Return the address of a sentinel: as a server's, with credentials of its own."""
        options = dict(parse_qsl(_parts(self.url)[3], keep_blank_values=True))
        named = [(k.removeprefix("sentinel_"), options.pop(k)) for k in _FOR_SENTINELS if k in options]
        query = urlencode([*named, *((k, v) for k, v in options.items() if k.startswith("ssl_"))])
        return f"{'rediss' if self.tls else 'redis'}://{node}" + (f"?{query}" if query else "")


def parse_address(url: str) -> StoreAddress:
    """Read an address without connecting. Raises StartupFailed where a cluster's or sentinels' is none.

    One server's address is left to whoever connects to it.
    """
    scheme, hosts, path, _ = _parts(url)
    family, plus, word = scheme.partition("+")
    if not plus:
        return StoreAddress(url, StoreKind.SERVER)
    try:
        if family not in {"redis", "rediss"}:
            raise ValueError
        kind = StoreKind(word)
        nodes = tuple(_node(text, _PORTS[kind.value]) for text in hosts.rpartition("@")[2].split(","))
        names = [unquote(part) for part in path.split("/") if part]
        if kind is StoreKind.CLUSTER:
            if names not in ([], ["0"]):
                raise ValueError
            return StoreAddress(url, kind, nodes)
        service, database = names[0], names[1] if names[1:] else "0"
        if names[2:] or not database.isdigit():
            raise ValueError
        return StoreAddress(url, kind, nodes, service, database)
    except (ValueError, KeyError, IndexError):
        expected = (
            "redis+cluster://user:password@host:port,host:port or "
            "redis+sentinel://user:password@host:port,host:port/service, with rediss+ for TLS"
        )
        shown = shown_url(url)
        raise StartupFailed(f"{shown}: not an address of a feature store: expected {expected}") from None


def _node(text: str, port: int) -> NodeAddress:
    parts = urlsplit(f"//{text}")
    host, given = parts.hostname, parts.port
    if not host or "@" in text or given == 0:
        raise ValueError
    return NodeAddress(host, port if given is None else given)


def _parts(url: str) -> tuple[str, str, str, str]:
    """Cut an address into scheme, hosts with their credentials, path and options.

    `urlsplit` knows one host only, and refuses several that are numbers of IPv6.
    """
    scheme, _, rest = url.partition("://")
    rest, _, options = rest.partition("?")
    hosts, slash, path = rest.partition("/")
    return scheme, hosts, slash + path, options


def shown_url(url: str) -> str:
    """Return an address as logs may show it: without user, password and options."""
    scheme, hosts, path, _ = _parts(url)
    try:
        if "+" in scheme:
            _, at, names = hosts.rpartition("@")
            nodes = ",".join(
                str(_node(text, _PORTS.get(scheme.partition("+")[2], 0))) for text in names.split(",")
            )
            return f"{scheme}://{'***@' if at else ''}{nodes}{path}"
        parts = urlsplit(url)
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an unreadable address"
    return f"{parts.scheme}://{'***@' if '@' in parts.netloc else ''}{host}{port}{parts.path}"
