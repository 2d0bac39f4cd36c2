"""Starting, stopping and being replaced, as an operator sees them."""
