"""Requests that nobody would think of, from the API's own document."""
