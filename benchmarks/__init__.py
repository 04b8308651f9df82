"""Benchmarks of the promises of speed; run as `python -m benchmarks`."""
