"""`python -m src …`: the command line."""

from src.cli import run

if __name__ == "__main__":
    run()
