"""The references: the same work with nothing of the service in between."""
