"""Which primary of a cluster holds which keys.

A cluster deals its keys out over 16384 slots by a CRC of the key, or of what stands in its first braces
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterator, Sequence
from typing import Any

from rankd_service.features.redis_connection import key_slot
from rankd_service.features.store_address import NodeAddress

__all__ = ["SLOTS", "SlotMap"]

SLOTS = 16384
_NOBODY = -1


class SlotMap:
    """The primaries and the slots of each. Immutable; `epoch` grows with every change agreed on."""

    def __init__(self, primaries: Sequence[NodeAddress], owners: Sequence[int], epoch: int) -> None:
        """Keep the primaries and, by slot, the position of its primary among them, or -1."""
        self.primaries = tuple(primaries)
        self._owners, self.epoch = list(owners), epoch

    @classmethod
    def parse(cls, slots: Any, info: Any, asked: NodeAddress) -> SlotMap:
        """Read the replies to CLUSTER SLOTS and CLUSTER INFO of the node `asked`. Raises ValueError.

        Where the reply names no host, that is the node which was asked.
        """
        try:
            primaries: dict[NodeAddress, int] = {}
            owners = [_NOBODY] * SLOTS
            for first, last, (host, port, *_), *_ in sorted(slots, key=lambda part: part[0]):
                node = NodeAddress(host.decode() if host and host != b"?" else asked.host, int(port))
                owner = primaries.setdefault(node, len(primaries))
                if not 0 <= first <= last < SLOTS:
                    raise ValueError(f"slots {first} to {last}")
                owners[first : last + 1] = [owner] * (last - first + 1)
            if not primaries:
                raise ValueError("it holds none and knows of none")
            lines = dict(line.split(b":", 1) for line in info.splitlines() if b":" in line)
            return cls(list(primaries), owners, int(lines[b"cluster_current_epoch"]))
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"{asked}: not a cluster's slots: {error}") from error

    @property
    def uncovered(self) -> int:
        """How many slots have no primary."""
        return self._owners.count(_NOBODY)

    def same_as(self, other: SlotMap) -> bool:
        """Tell whether every key is where the other map has it."""
        return self.primaries == other.primaries and self._owners == other._owners

    def split(self, keys: Sequence[bytes]) -> Iterator[tuple[NodeAddress | None, list[int]]]:
        """Give out each primary of some of the keys with their positions; None has slots with no primary."""
        braces = b"{" in b"".join(keys)
        # Without any the second is the same, in half the time.
        slots = [key_slot(key) for key in keys] if braces else [crc_hqx(key, 0) % SLOTS for key in keys]
        owners, groups = self._owners, dict[int, list[int]]()
        for position, slot in enumerate(slots):
            groups.setdefault(owners[slot], []).append(position)
        for owner, positions in groups.items():
            yield (None if owner == _NOBODY else self.primaries[owner]), positions
