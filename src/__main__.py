"""`python -m src …`: the command line."""

import sys
from collections.abc import Sequence

from src.config import ConfigurationError, load_settings, refuse_weak


def main() -> None:
    if sys.argv[1:2] == ["serve"] and (options := _read(sys.argv[2:])) is not None:
        # All that is served takes a second to import; who is refused need not wait for it.
        try:
            refuse_weak(load_settings(http=options))
        except ConfigurationError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(2)
    from src.cli import run

    run()


def _read(arguments: Sequence[str]) -> dict[str, str] | None:
    """Of `serve`, which may mend what is wrong with the settings; None for what the command line itself has to judge."""
    if len(arguments) % 2:
        return None
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    numbers = [value for name, value in options.items() if name in ("--port", "--workers")]
    if not options.keys() <= {"--host", "--port", "--workers"} or not all(map(str.isdecimal, numbers)):
        return None
    return {name.removeprefix("--"): value for name, value in options.items()}


if __name__ == "__main__":
    main()
