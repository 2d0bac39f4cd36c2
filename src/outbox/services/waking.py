"""Those of this process who wait for something to do."""

import asyncio


class WakeUps:
    def __init__(self) -> None:
        self.waiting: set[asyncio.Event] = set()

    def ring(self) -> None:
        """They look at once."""
        for event in self.waiting:
            event.set()
