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
    names, values = arguments[::2], arguments[1::2]
    known = {"--host": lambda _: True, "--port": str.isdecimal, "--workers": str.isdecimal}
    if len(names) != len(values) or not all(
        name in known and known[name](value) for name, value in zip(names, values, strict=True)
    ):
        return None
    return {name.removeprefix("--"): value for name, value in zip(names, values, strict=True)}


if __name__ == "__main__":
    main()
