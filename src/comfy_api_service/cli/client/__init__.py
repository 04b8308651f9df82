"""The client: speaks to a running service over HTTP, knows nothing of its inside."""
