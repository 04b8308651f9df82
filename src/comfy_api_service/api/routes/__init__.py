"""The operations, one noun a file. A handler parses, calls one use case and shapes the answer."""
