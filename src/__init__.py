"""Undercroft: the floor that a backend stands on."""

__version__ = "0.1.0"
