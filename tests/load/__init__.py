"""More clients, slower clients and ruder clients than are good for a service."""
