"""Mails: rendered when they are written, sent after COMMIT."""
