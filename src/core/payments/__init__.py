"""Paying orders: through whom the money comes is behind a port."""
