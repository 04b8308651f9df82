"""What a node's function is given, and how it is registered."""

import asyncio
import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

from comfy_api_service.simulator.files import Files
from comfy_api_service.simulator.inventory import NodeClass
from comfy_api_service.simulator.models import Shelf
from comfy_api_service.simulator.settings import SimulatorSettings
from comfy_api_service.simulator.values import Conditioning, Images, Latent, Mask, Model, Result

T = TypeVar("T")


class NodeFailure(Exception):
    """A node fails in the way a real one does: with this class name and message."""

    def __init__(self, exception_type: str, message: str) -> None:
        super().__init__(message)
        self.exception_type = exception_type


class Steps(Protocol):
    """Tells clients of a step, with a preview (JPEG) or a result (PNG); raises if the prompt was interrupted."""

    async def __call__(
        self,
        value: int,
        maximum: int,
        preview: Callable[[], bytes] | None = None,
        *,
        seconds: float = 0.0,
        result: bytes | None = None,
    ) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What all nodes of a prompt share."""

    settings: SimulatorSettings
    files: Files
    shelf: Shelf
    threads: Executor
    graph: dict[str, Any]
    extra_pnginfo: Mapping[str, Any] | None
    step: Steps
    previews: bool
    seconds_left: Callable[[], float | None]
    """What remains of a fixed time a prompt, or None."""
    temp_suffix: Callable[[], str]


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One execution of one node: its resolved inputs with typed ways to read them."""

    node_id: str
    node_class: NodeClass
    inputs: Mapping[str, Any]
    around: Surroundings

    def get(self, name: str, kind: type[T]) -> T:
        value = self.inputs.get(name)
        if not isinstance(value, kind):
            raise NodeFailure("TypeError", f"{name}: {type(value).__name__} is no {kind.__name__}")
        return value

    def integer(self, name: str, default: int = 0) -> int:
        return int(self.inputs.get(name, default))

    def number(self, name: str, default: float = 0.0) -> float:
        return float(self.inputs.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        return str(self.inputs.get(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.inputs.get(name, default))

    def images(self, name: str = "image") -> Images:
        return self.get(name, Images)

    def mask(self, name: str = "mask") -> Mask:
        return self.get(name, Mask)

    def latent(self, name: str = "samples") -> Latent:
        return self.get(name, Latent)

    def model(self, name: str = "model") -> Model:
        return self.get(name, Model)

    def conditioning(self, name: str = "conditioning") -> Conditioning:
        return self.get(name, Conditioning)

    async def thread(self, work: Callable[[], T]) -> T:
        """Run blocking work away from the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.around.threads, work)

    def allocate(self, width: int, height: int, count: int) -> None:
        """Fail as a server does that has not so much memory."""
        wanted = width * height * count * 4
        if wanted <= self.around.settings.allocation_limit:
            return
        raise NodeFailure(
            "RuntimeError",
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
            f"tried to allocate {wanted} bytes. Error code 12 (Cannot allocate memory)",
        )


PYTHON_NAMES = {"PreviewImage": "SaveImage.save_images", "SaveImage": "SaveImage.save_images"}
"""Of the functions behind nodes; those of newer nodes are called `execute`."""


def check_keywords(node_class: NodeClass, inputs: Mapping[str, Any]) -> None:
    """Fail on an input that the class does not have: a value there is dropped, what is linked is passed on."""
    for name in inputs:
        if name not in node_class.inputs:
            function = PYTHON_NAMES.get(node_class.name, f"{node_class.name}.execute")
            raise NodeFailure("TypeError", f"{function}() got an unexpected keyword argument '{name}'")


Outputs = tuple[Any, ...]
Function = Callable[[Call], Outputs | Result] | Callable[[Call], Awaitable[Outputs | Result]]


@dataclasses.dataclass(frozen=True, slots=True)
class Registered:
    """A node's function; `heavy` ones that are no coroutines run in a thread."""

    function: Function
    heavy: bool = False

    async def __call__(self, call: Call) -> Result:
        function: Any = self.function
        if inspect.iscoroutinefunction(function):
            found = await function(call)
        elif self.heavy:
            found = await call.thread(lambda: function(call))
        else:
            found = function(call)
        return found if isinstance(found, Result) else Result(found)


REGISTRY: dict[str, Registered] = {}


def node(*names: str, heavy: bool = False) -> Callable[[Function], Function]:
    """Register a function as the work of these node classes."""

    def register(function: Function) -> Function:
        for name in names:
            REGISTRY[name] = Registered(function, heavy)
        return function

    return register


def passthrough(call: Call) -> Outputs:
    """For each output the first linked input of the same type, else None."""
    outputs = []
    for kind in call.node_class.output:
        names = (n for n, spec in call.node_class.inputs.items() if spec[0] == kind and n in call.inputs)
        name = next(names, None)
        outputs.append(call.inputs[name] if name is not None else None)
    return tuple(outputs)
