"""Webhooks: what happens here is told to servers of others, signed, until they have heard it."""
