"""Runs beside the matrix, each a story of its own: one file a trial, `TRIAL`, found by `tests.chaos.trials.trial`.

No cell's result depends on what is here.
"""
