"""Workflows that come with the service, a JSON file each: name, description, graph, parameters, outputs."""
