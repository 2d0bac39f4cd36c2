"""`python -m src …`: the command line."""

import sys

from src.config import ConfigurationError, load_settings, refuse_weak


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        # All that is served takes a second to import; who is refused need not wait for it. Options are another matter:
        # they may mend what is wrong with the settings.
        try:
            refuse_weak(load_settings())
        except ConfigurationError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(2)
    from src.cli import run

    run()


if __name__ == "__main__":
    main()
