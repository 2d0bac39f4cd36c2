"""The business: what a team deletes and replaces by its own."""
