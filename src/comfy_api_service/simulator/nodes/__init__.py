"""The node classes that a simulated server can execute, by name.

Each module registers its own. A class that is in the inventory but has no function here passes its inputs on
where the types fit, so that any graph of known nodes runs.
"""

from . import conditioning, images, latents, loaders, primitives, sampling, saving, videos
from .base import REGISTRY, Call, NodeFailure, Registered, passthrough

__all__ = ["REGISTRY", "Call", "NodeFailure", "Registered", "find"]

MODULES = (conditioning, images, latents, loaders, primitives, sampling, saving, videos)


def find(name: str) -> Registered:
    """The function of a node class."""
    return REGISTRY.get(name, Registered(passthrough))
