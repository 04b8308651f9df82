"""The check of every dependency: small functions, each giving a `Finding` with a remedy."""
