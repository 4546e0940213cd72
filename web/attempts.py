"""Wrong passwords, counted by address, so that nobody can try many."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

MOST = 10
"""Wrong passwords of an address within `SPAN`. After these, right ones are refused too."""

SPAN = 60.0
"""Seconds for which a wrong password counts."""

ADDRESSES = 10_000
"""Addresses that are remembered; the one that guessed least recently is forgotten."""

NETWORK = 64
"""Bits of an IPv6 address that count: one visitor has all addresses of such a network."""


class Attempts:
    """The wrong passwords of the last minute.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, address: str) -> None:
        """Count a wrong password.

        Args:
            address: Address of the visitor.
        """
        key = _network(address)
        self._times.setdefault(key, deque(maxlen=MOST)).append(self._clock())
        self._times.move_to_end(key)
        while len(self._times) > ADDRESSES:
            self._times.popitem(last=False)

    def too_many(self, address: str) -> bool:
        """Tell whether an address must wait before it may try again.

        Args:
            address: Address of the visitor.

        Returns:
            Whether it gave `MOST` wrong passwords within the last `SPAN` seconds.
        """
        times = self._times.get(_network(address), deque())
        return len(times) == MOST and self._clock() - times[0] < SPAN


def _network(address: str) -> str:
    """Return what counts of an address: all of IPv4, the network of IPv6."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return str(found)
    return str(found.ipv4_mapped or int(found) >> (128 - NETWORK))
