"""Everything that a simulated server can be told to do wrong: its public face for tests.

All methods take effect at once. Those with `times`, `count` or `n` wear off; the others last until switched
off, until `heal()`, or until the server is restarted: a new process knows nothing of the old one's faults.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from .frame_faults import FrameFaults
from .node_faults import OUT_OF_MEMORY, NodeFaults
from .nodes.base import NodeFailure

if TYPE_CHECKING:
    from .server import Simulator


class Faults:
    """One object, named methods. Names of frames: `status`, `executed`, `preview` (binary) and so on."""

    def __init__(self, simulator: "Simulator") -> None:
        self._simulator = simulator
        self.frames = FrameFaults()
        self.nodes = NodeFaults()
        self.gate = asyncio.Event()
        """Clear while the server hangs."""
        self.gate.set()
        self.delay = 0.0
        self._halved = 0
        self._halved_paths = ""
        self._dropped_prompts = 0
        self._errors = 0
        self._error_status = 500
        self._garbled = False
        self._content: bytes | None = None
        self._endless: tuple[bytes, float] | None = None

    # --- the whole server

    async def die(self) -> None:
        """As kill -9: every connection is cut, queue, history and cache are gone, nobody listens."""
        await self._simulator.kill()

    async def restart(self, after: float = 0.0) -> None:
        """Listen again on the same port, with nothing remembered; dies first if it still lives."""
        await self._simulator.kill()
        if after > 0:
            await asyncio.sleep(after)
        await self._simulator.revive()

    def hang(self) -> None:
        """As SIGSTOP: connections are accepted, nothing is answered, sent or run; pings neither."""
        self.gate.clear()

    def resume(self) -> None:
        self.gate.set()

    def heal(self) -> None:
        """Take back every fault but death."""
        self.gate.set()
        self.delay = 0.0
        self._halved = self._dropped_prompts = self._errors = 0
        self._garbled = False
        self._content = self._endless = None
        self.frames.silent = False
        for budget in (self.frames.lost, self.frames.repeated, self.frames.reordered):
            budget.set(0, ())
        self.nodes.heal()
        self._simulator.engine.takes_prompts.set()

    # --- the socket

    def silence_socket(self, on: bool = True) -> None:
        """Frames are thrown away while on; sockets stay open and pings are answered."""
        self.frames.silent = on

    def close_sockets(self) -> None:
        """Cut every WebSocket without a closing frame."""
        self._simulator.engine.hub.abort()

    def lose_frames(self, count: int | None = None, types: Iterable[str] = ()) -> None:
        """The next `count` frames (None: all from now on) of these types (none named: any) are lost."""
        self.frames.lost.set(count, types)

    def repeat_frames(self, count: int | None = None, types: Iterable[str] = ()) -> None:
        """The next frames are sent twice."""
        self.frames.repeated.set(count, types)

    def reorder_frames(self, count: int | None = None, types: Iterable[str] = ()) -> None:
        """The next frames come each after the one that follows it."""
        self.frames.reordered.set(count, types)

    # --- answers

    def slow(self, seconds: float) -> None:
        """Every answer waits so long; 0 ends it."""
        self.delay = seconds

    def halve_responses(self, n: int = 1, path: str = "") -> None:
        """The next `n` answers (of paths that contain `path`) break off in the middle of the body."""
        self._halved, self._halved_paths = n, path

    def drop_answer_after_accepting(self, n: int = 1) -> None:
        """The next `n` prompts are accepted, and the connection is cut instead of an answer."""
        self._dropped_prompts = n

    def answer_errors(self, n: int = 1, status: int = 500) -> None:
        """The next `n` requests get this status and nothing happens."""
        self._errors, self._error_status = n, status

    # --- memory and files

    def forget_history(self) -> None:
        self._simulator.engine.history.clear()

    def garble_history(self, on: bool = True) -> None:
        """Entries of history are told without their prompt and status."""
        self._garbled = on

    def forget_queue(self) -> None:
        """Pending prompts vanish without a trace; the running one goes on."""
        self._simulator.engine.queue.clear()

    async def delete_outputs(self) -> None:
        """All saved files are gone; the cache still names them."""
        await asyncio.to_thread(self._simulator.files.delete_outputs)

    def serve_content(self, content: bytes | None) -> None:
        """Every file that is asked for, there or not, is these bytes; None ends it."""
        self._content = content

    def serve_endlessly(self, begin: bytes = b"", pause: float = 0.0) -> None:
        """Every file begins with these bytes, and never ends; a second's part of `pause` between its pieces."""
        self._endless = (begin, pause)

    # --- running prompts

    def out_of_memory(self, node_class: str = "KSampler", times: int | None = 1) -> None:
        """The next runs of this class fail as on a GPU that is out of memory; models are unloaded."""
        self.nodes.fail(node_class, NodeFailure("torch.OutOfMemoryError", OUT_OF_MEMORY), times)

    def fail_node(
        self,
        node_class: str,
        message: str = "simulated failure",
        exception_type: str = "RuntimeError",
        times: int | None = None,
    ) -> None:
        """Runs of this class fail with this message: always, or so many times."""
        self.nodes.fail(node_class, NodeFailure(exception_type, message), times)

    def rewrite_graph(self, function: Callable[[dict[str, Any]], dict[str, Any]] | None) -> None:
        """Change each graph before it is validated, as some custom nodes do; None ends it."""
        self.nodes.rewrite(function)

    def rewrite_input(self, node_class: str, name: str, value: Any) -> None:
        """Set one input of every node of a class; `rewrite_graph` for those who only have JSON."""

        def change(graph: dict[str, Any]) -> dict[str, Any]:
            for node in graph.values():
                if node.get("class_type") == node_class:
                    node["inputs"][name] = value
            return graph

        self.nodes.rewrite(change)

    def accept_and_run_nothing(self, on: bool = True) -> None:
        """A zombie: prompts are accepted and stay pending, the worker is dead."""
        if on:
            self._simulator.engine.takes_prompts.clear()
        else:
            self._simulator.engine.takes_prompts.set()

    def answer_output(self, node_class: str, output: dict[str, Any] | None) -> None:
        """Nodes of this class say that they gave `output` (as in `executed`), whatever they did; None ends it."""
        self.nodes.answer(node_class, output)

    def flood_outputs(self, node_class: str, count: int) -> None:
        """Each run of this class tells of so many outputs more, each of another file; not in history."""
        self.nodes.flood(node_class, count)

    def stall(self, on: bool = True, after: int = 0) -> None:
        """After so many more steps the running prompt shows no sign of life; everything else answers."""
        self.nodes.stall(after if on else None)

    async def stalled(self) -> None:
        """Wait until a prompt stands still because of `stall`."""
        await self.nodes.stalled.wait()

    # --- asked by the server

    @property
    def garbled(self) -> bool:
        return self._garbled

    @property
    def content(self) -> bytes | None:
        return self._content

    @property
    def endless(self) -> tuple[bytes, float] | None:
        return self._endless

    def take_half(self, path: str) -> bool:
        if self._halved > 0 and self._halved_paths in path:
            self._halved -= 1
            return True
        return False

    def take_drop(self) -> bool:
        if self._dropped_prompts > 0:
            self._dropped_prompts -= 1
            return True
        return False

    def take_error(self) -> int | None:
        if self._errors > 0:
            self._errors -= 1
            return self._error_status
        return None


REMOTE: Collection[str] = (
    "accept_and_run_nothing",
    "answer_errors",
    "answer_output",
    "close_sockets",
    "delete_outputs",
    "die",
    "drop_answer_after_accepting",
    "fail_node",
    "flood_outputs",
    "forget_history",
    "forget_queue",
    "garble_history",
    "halve_responses",
    "hang",
    "heal",
    "lose_frames",
    "out_of_memory",
    "reorder_frames",
    "repeat_frames",
    "restart",
    "resume",
    "rewrite_input",
    "silence_socket",
    "slow",
    "stall",
)
"""The faults that can be asked for over HTTP."""
