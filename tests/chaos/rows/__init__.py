"""One file a row: `ROW`, found by `tests.chaos.matrix`."""
