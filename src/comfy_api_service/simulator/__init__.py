"""A stand-in for a ComfyUI server: same routes, frames and errors, no GPU, and faults on demand.

It imports nothing of the rest of the package, and nothing but the command line imports it.
"""

from .faults import Faults
from .record import Record
from .server import Simulator, serve
from .settings import DEFAULT_MODELS, SimulatorSettings

__all__ = ["DEFAULT_MODELS", "Faults", "Record", "Simulator", "SimulatorSettings", "serve"]
