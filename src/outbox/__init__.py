"""Effects outside the database: written down in the transaction of the change, carried out after its COMMIT."""
