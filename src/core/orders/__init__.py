"""Who bought what, and how far it got."""
