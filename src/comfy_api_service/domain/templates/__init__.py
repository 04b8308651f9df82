"""Workflow templates: values, whether they fit together, how they are filled and how they are found in a graph."""
