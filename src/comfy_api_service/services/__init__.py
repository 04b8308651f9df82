"""Use cases, one a file. Transactions are opened and closed here, never in a route."""
