"""Free ports for servers that tests start."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port on 127.0.0.1 that nobody else is given while the server it is meant for starts."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        if sys.platform != "linux":
            # Linux lets a second socket with SO_REUSEADDR have the port while the first does not listen; others refuse.
            holder.close()
        yield port
