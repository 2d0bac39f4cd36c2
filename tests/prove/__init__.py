"""Claims of the service, each with a figure: `python -m tests.prove` plays them in full, the tests a slice of each."""
