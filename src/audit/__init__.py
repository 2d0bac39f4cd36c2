"""Who did what to whom, and from where: written with the change, and never again."""
