"""One file a domain, named like it: a controller turns a letter into one service call."""
