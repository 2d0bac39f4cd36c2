"""Numbers over all domains, for administrators."""
