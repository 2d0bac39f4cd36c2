"""A process that has imported all of the service, and forks one for each line on its standard input: the arguments of
`python -m src`. It writes the id of each, buries the one before, and ends as the last one ended.

Most of a start is imports; a thousand of them are too many for one afternoon.
"""

import os
import sys

import src.http.app  # noqa: F401 - its imports are what takes time
from src.cli import cli


def main() -> None:
    child = 0
    while line := sys.stdin.readline():
        if child:
            os.waitpid(child, 0)
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            cli(line.split())
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
