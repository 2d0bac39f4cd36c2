"""Copies of a shared server's entries within the process, for as long as they are known to be true."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

MAX_BYTES = 32 * 1024 * 1024

Keep = Callable[[str, bytes, float], None]


class FirstTier:
    """Empty and closed, until somebody who hears of every change calls `trust_until`, again and again.

    A copy lives for `max_seconds`, or as long as the entry has left on the server if that is shorter. The oldest one
    makes room: whatever is in use comes back, so who was read last need not be written down on each read.
    """

    def __init__(self, max_entries: int, max_seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._max_entries = max_entries
        self._max_seconds = max_seconds
        self._clock = clock
        self._trusted_until = 0.0
        self._copies: dict[str, tuple[bytes, float]] = {}
        self._keys: OrderedDict[bytes, str] = OrderedDict()  # of the copies, by their names on the server, oldest first
        self._bytes = 0
        self._fills: dict[bytes, object] = {}

    def find(self, key: str) -> bytes | None:
        copy = self._copies.get(key)
        if copy is None:
            return None
        written, expires_at = copy
        now = self._clock()
        return written if now < expires_at and now < self._trusted_until else None

    def is_open(self) -> bool:
        return self._clock() < self._trusted_until

    def trust_until(self, moment: float) -> None:
        """By the clock. All that changed before the call has been forgotten; what changes next is not known after it."""
        self._trusted_until = moment

    def close(self) -> None:
        self._trusted_until = 0.0
        self.forget(None)

    @contextmanager
    def fill(self, entries: Mapping[str, bytes]) -> Iterator[Keep]:
        """Within the block these keys are fetched, and kept (key, value, seconds left) unless they change meanwhile."""
        begun_at = self._clock()
        # Those who fetch the same key at once share a fill, or one that comes would always spoil the one before. Theirs
        # began earlier, so it is spoilt by all that would spoil a later one.
        fills = {key: self._fills.setdefault(name, object()) for key, name in entries.items()}

        def keep(key: str, written: bytes, seconds: float) -> None:
            name = entries[key]
            if self._fills.get(name) is fills[key]:
                self._keep(key, name, written, begun_at + min(seconds, self._max_seconds))

        try:
            yield keep
        finally:
            for key, fill in fills.items():
                if self._fills.get(entries[key]) is fill:
                    del self._fills[entries[key]]

    def forget(self, names: Iterable[bytes] | None) -> None:
        """None means all, as the server says it."""
        if names is None:
            self._fills.clear()
            self._copies.clear()
            self._keys.clear()
            self._bytes = 0
        else:
            for name in names:
                self._fills.pop(name, None)
                self._drop(name)

    def _keep(self, key: str, name: bytes, written: bytes, expires_at: float) -> None:
        self._drop(name)  # what is overwritten would keep its old place in the queue
        size = len(key) + len(written)
        if size > MAX_BYTES // 4:  # it would send too many others away
            return
        self._copies[key] = written, expires_at
        self._keys[name] = key
        self._bytes += size
        while len(self._copies) > self._max_entries or self._bytes > MAX_BYTES:
            self._drop(next(iter(self._keys)))

    def _drop(self, name: bytes) -> None:
        key = self._keys.pop(name, None)
        if key is not None:
            written, _ = self._copies.pop(key)
            self._bytes -= len(key) + len(written)
