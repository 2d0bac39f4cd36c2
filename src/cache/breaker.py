"""A circuit breaker: a server that failed is left alone for a while, then one request tries it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from loguru import logger

from src.cache.protocol import CacheUnavailableError


class Breaker:
    """Opens at the first failure, since each one costs a request its time-out."""

    def __init__(
        self, rest_seconds: float, failures: tuple[type[Exception], ...], clock: Callable[[], float] = monotonic
    ) -> None:
        self._rest_seconds = rest_seconds
        self._failures = failures
        self._clock = clock
        self._open = False
        self._probing = False
        self._retry_at = 0.0
        self._trips = 0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Try the server in this block.

        Raises:
            CacheUnavailableError: it failed, or it is not to be tried yet.
        """
        probing, trips = self._open, self._trips
        if probing and (self._probing or self._clock() < self._retry_at):
            raise CacheUnavailableError
        self._probing = probing
        try:
            yield
        except self._failures as error:
            # Of many that were under way only the first one trips; the others have nothing new to tell.
            if self._trips == trips:
                self._trip(error)
            raise CacheUnavailableError from error
        else:
            if probing:
                self._recover()
        finally:
            if probing:
                self._probing = False

    def _trip(self, error: Exception) -> None:
        if not self._open:
            # The class only: a text could quote the command, and with it a cached value.
            logger.bind(reason=type(error).__name__).warning("Cache server unavailable, going on without it")
        self._open = True
        self._trips += 1
        self._retry_at = self._clock() + self._rest_seconds

    def _recover(self) -> None:
        self._open = False
        logger.info("Cache server available again")
