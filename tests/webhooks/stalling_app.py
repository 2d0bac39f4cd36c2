"""The service, whose first delivery stops its process after it was found to be in time, and before it is sent."""

import os
import signal
from typing import Any

from src.main import create_app
from src.webhooks import transport
from src.webhooks.transport import Outcome

_send = transport.send
_stopped = False


async def stalling(*args: Any, **how: Any) -> Outcome:  # Any: as that one has it
    global _stopped  # noqa: PLW0603 - of the process that is stopped
    if not _stopped:
        _stopped = True
        os.kill(os.getpid(), signal.SIGSTOP)
    return await _send(*args, **how)


transport.send = stalling
app = create_app()
