"""Which job a backend takes next: start-time fair queueing between accounts, with affinity to loaded models.

`choose` is a pure function of a small snapshot; it must never read a clock, a database or a random number.
It never takes a job from a lane further ahead of the least than the window, whatever the models are.

The rules, in the order in which they bind:

1. *Fairness.* The lane with the least virtual time (`vtime`, seconds of a backend per unit of weight) is due.
   Only lanes within `window` of it take part, so that of two lanes with work all the time none gets further
   ahead than the window and one job's cost. Ties: vtime, then account.
2. *Order within a lane.* A job goes only if no other need of its lane has a head of higher priority; between
   heads of one priority that the backend could take alike, the older one (the lesser id).
3. *Affinity.* The loaded model keeps the backend for its residency quantum, `QUANTUM_LOADS` times its
   measured loading, while a lane in the window has a job for it; the first such lane goes.
4. *Turning.* Otherwise the backend turns to the model with the most pending work in the window, over
   (1 + backends elsewhere that have it loaded)².
5. *No model starves.* Every model with work in the window has two clocks on each backend, in estimated
   seconds given to other models: `passed` since it was last taken here or had no work in the window, and
   `alone`, which is also set back whenever another backend has it loaded. A model passed over for as long as
   the quanta of all others together goes next (`passed`); and the backend turns to no model after which one
   that is loaded nowhere else would come later than that (`alone`, by looking ahead).
6. *Newcomers.* When a backend turns, an account that was never served goes before the model with the most
   work: its first job starts, running quanta aside, before anybody else's next but one. Rule 5 still binds.
7. *Jobs without a model* load nothing and end nothing: they go when their lane comes before the first one
   with a job for the model that the backend has, or would turn to. They move no clock.

Choices within these rules, each seen in a model of a pool (4 backends, 8 models by Zipf's law):

- V is a figure of each backend, and a lane's is that of the furthest backend that serves it. Virtual time goes
  fast where few accounts share a backend: with one V for all, who comes to a crowded one beside it would wait
  until it has caught up, hours instead of a minute.
- A lane enters `ENTRY` of a window behind V, not a whole one. Who asks for most of the pool stands at V plus
  one job: a whole window behind him, everybody who comes in would put him outside of the window, where he waits
  until nobody else does, and the pool has less work to choose from. At 0.7 of capacity, weights 1 to 8 and
  equal demand, that makes 21 loads of 100 jobs instead of 16, and the lightest fall behind. More room (0.75)
  gains nothing there, but lets one account with a long queue raise the others' median wait by a third.
- A rule that only looks whether a model is overdue lets several become overdue together and wait for each
  other. Looking ahead keeps the promise to all: served in the order of their clocks from now on, each must
  still begin in time, or else the first of them goes now. As every promise is "finished within the quanta of
  all", the order of the clocks is that of the deadlines.
- The look-ahead leaves out models loaded elsewhere: they are being served, and with it for all, every backend
  tours all models, which at 0.7 of capacity makes p99 of waiting two to six times as long. `passed` still brings
  such a model here in the end, for jobs that only this backend can run.
- Work counts as pending, and a model as waiting, only while rule 2 lets one of its heads go.
- The loaded model competes for its own succession: turning away and back costs two loads.
- What the last job of a quantum runs over it is taken off the next one (`spent` starts with it), so that many
  quanta together run over by one job, not by one each.
- Each backend has its own clocks: that a job for a model was taken elsewhere does not set `passed` back. A
  model without work in the window is forgotten, which bounds the memory by what the snapshot holds.
- Loads are not counted as cost here: nobody pays for the model that was loaded before.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, Self

MAX_LANES: Final = 64
"""How many lanes take part at most, those with the least virtual times."""
WINDOW_JOBS: Final = 20
"""A window is the mean cost of this many jobs, as virtual time of weight 1."""
QUANTUM_LOADS: Final = 10
"""A backend keeps a model for this many times what its loading takes."""
ENTRY: Final = 0.9
"""How far behind V a lane enters at most, in windows."""
DEFAULT_LOAD_SECONDS: Final = 8.0
"""Assumed for a model whose loading has not been measured."""

_ROUNDING: Final = 1e-6
"""Seconds by which sums of costs may differ from what they are."""


@dataclass(frozen=True, slots=True)
class Need:
    """What waits in one lane for one requirement that this backend satisfies."""

    requirement: str
    model: str | None
    """The primary model, "kind/name"; none for graphs that load nothing."""
    queued: int
    """Ready jobs, at least one."""
    head: str
    """Job id of the first by (priority descending, id ascending) within lane and need."""
    head_priority: int
    head_cost: float
    """Estimated seconds of a backend, above zero."""


@dataclass(frozen=True, slots=True)
class Lane:
    """An account's queue that is ready for a backend: under its cap, with a need that the backend satisfies."""

    account: str
    vtime: float
    """Seconds of a backend per unit of weight, as charged so far."""
    weight: float
    """Above zero."""
    needs: tuple[Need, ...]
    newcomer: bool = False
    """No job of the account was ever claimed."""


@dataclass(frozen=True, slots=True)
class Residency:
    """What a backend remembers of its turn between claims; all times are estimated seconds of it."""

    model: str | None = None
    """The model last turned to: loaded, or about to be by a prompt already claimed."""
    spent: float = 0.0
    """Given to `model` since the backend turned to it, with what the turn before ran over its quantum."""
    passed: Mapping[str, float] = field(default_factory=dict)
    """Model → given to others while it had work in the window."""
    alone: Mapping[str, float] = field(default_factory=dict)
    """Model → the same since it is loaded on no other backend."""

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "spent": self.spent,
            "passed": dict(self.passed),
            "alone": dict(self.alone),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Self:
        """The reverse of `to_json`; nothing, or what lacks a field, gives an empty memory of it."""
        value = value or {}
        return cls(
            model=value.get("model"),
            spent=float(value.get("spent", 0.0)),
            passed=dict(value.get("passed", {})),
            alone=dict(value.get("alone", {})),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a choice depends on, read for one backend."""

    lanes: tuple[Lane, ...]
    """Ready lanes, ascending by vtime; beyond `MAX_LANES` they take no part."""
    window: float
    """In units of vtime; see `WINDOW_JOBS`."""
    residency: Residency = field(default_factory=Residency)
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    """Model → how many other backends that serve jobs now have it loaded."""
    load_times: Mapping[str, float] = field(default_factory=dict)
    """Model → measured seconds of its loading; `DEFAULT_LOAD_SECONDS` if absent."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The job to claim, and what the claim writes."""

    account: str
    requirement: str
    job: str
    model: str | None
    cost: float
    start_tag: float
    """The lane's vtime at the claim. A backend's V is the greatest it gave out."""
    vtime: float
    """The lane's new one: raised by cost over weight."""
    residency: Residency
    """The backend's new memory."""


def choose(snapshot: Snapshot) -> Choice | None:
    """The next job for a backend, or nothing if no lane is ready for it."""
    window = _in_window(snapshot)
    if not window:
        return None
    pending = _pending(window)
    memory = snapshot.residency
    if _unspent(snapshot, pending):
        guest, turn = None, _Turn(memory.model, memory.spent)
    else:
        guest = _newcomer(window)
        turn = _turn(snapshot, pending, None if guest is None else guest[1].model)
    if guest is not None and guest[1].model in {None, turn.model}:
        lane, need = guest
    else:
        lane, need = _first(window, turn.model)
    return Choice(
        account=lane.account,
        requirement=need.requirement,
        job=need.head,
        model=need.model,
        cost=need.head_cost,
        start_tag=lane.vtime,
        vtime=lane.vtime + need.head_cost / lane.weight,
        residency=_after(snapshot, pending, turn, need),
    )


def standing(snapshot: Snapshot, choice: Choice) -> tuple[float, float]:
    """The least and the greatest vtime of the chosen lane with which it stands where it stood among the others:
    a choice holds while what has ended or begun meanwhile moves its lane no further.

    Only where the window ends may differ, if the lane is the least one; its own jobs are within the window then.
    """
    others = [lane.vtime for lane in snapshot.lanes if lane.account != choice.account]
    before = [vtime for vtime in others if vtime <= choice.start_tag]
    behind = [vtime for vtime in others if vtime > choice.start_tag]
    furthest = min(before) + snapshot.window if before else math.inf
    return max(before, default=-math.inf), min([*behind, furthest])


def entering(vtime: float, v: float, window: float) -> float:
    """The virtual time of a lane that is ready again: nothing is saved up.

    Again: it was empty, at its cap, or had no job that any backend could run. `v` is the greatest start tag
    given out by the backends that can run one of its jobs now.
    """
    return max(vtime, v - ENTRY * window)


def corrected(vtime: float, estimated: float, real: float, weight: float) -> float:
    """The virtual time at a job's end, when its real seconds are known."""
    return vtime + (real - estimated) / weight


def given_back(vtime: float, estimated: float, weight: float) -> float:
    """The virtual time after an attempt was lost by no fault of the job: it costs nothing."""
    return vtime - estimated / weight


@dataclass(frozen=True, slots=True)
class _Turn:
    """The model that a backend works for, and what is already spent of its quantum."""

    model: str | None
    spent: float


_HEAD: Final = attrgetter("head")
_DUE: Final = attrgetter("vtime", "account")
_Window = list[tuple[Lane, list[Need]]]
"""Lanes in due order, each with the needs whose heads may go (rule 2)."""


def _in_window(snapshot: Snapshot) -> _Window:
    lanes = sorted((lane for lane in snapshot.lanes if lane.needs), key=_DUE)
    if not lanes:
        return []
    limit = lanes[0].vtime + snapshot.window
    window: _Window = []
    for lane in lanes[:MAX_LANES]:
        if lane.vtime > limit:
            break
        priority = max([need.head_priority for need in lane.needs])
        window.append((lane, [need for need in lane.needs if need.head_priority == priority]))
    return window


def _pending(window: _Window) -> dict[str, float]:
    """Model → estimated seconds of work for it in the window."""
    pending: dict[str, float] = {}
    for _, needs in window:
        for need in needs:
            if need.model is not None:
                pending[need.model] = pending.get(need.model, 0.0) + need.queued * need.head_cost
    return pending


def _quantum(snapshot: Snapshot, model: str) -> float:
    return QUANTUM_LOADS * snapshot.load_times.get(model, DEFAULT_LOAD_SECONDS)


def _unspent(snapshot: Snapshot, pending: Mapping[str, float]) -> bool:
    """Rule 3: the quantum goes on."""
    memory = snapshot.residency
    return (
        memory.model is not None
        and memory.model in pending
        and memory.spent < _quantum(snapshot, memory.model)
    )


def _turn(snapshot: Snapshot, pending: Mapping[str, float], guest: str | None) -> _Turn:
    """Rules 4 to 6: the model that gets the next quantum, be it the loaded one. `guest` is a newcomer's."""
    memory = snapshot.residency
    if not pending:
        return _Turn(memory.model, memory.spent)
    over = 0.0 if memory.model is None else max(0.0, memory.spent - _quantum(snapshot, memory.model))
    quanta = {model: _quantum(snapshot, model) for model in pending}
    wanted = _wanted(snapshot, pending, quanta) if guest is None else guest
    return _Turn(_kept(snapshot, wanted, quanta, over), over)


def _wanted(snapshot: Snapshot, pending: Mapping[str, float], quanta: Mapping[str, float]) -> str:
    """The model passed over for too long, the longest first, or else the one with the most pending work."""
    memory = snapshot.residency
    everything = sum(quanta.values())
    overdue = [
        model
        for model in pending
        if model != memory.model and memory.passed.get(model, 0.0) >= everything - quanta[model] - _ROUNDING
    ]
    if overdue:
        return min(overdue, key=lambda model: (-memory.passed.get(model, 0.0), model))
    elsewhere = snapshot.elsewhere
    return min(pending, key=lambda model: (-pending[model] / (1 + elsewhere.get(model, 0)) ** 2, model))


def _kept(snapshot: Snapshot, wanted: str, quanta: Mapping[str, float], over: float) -> str:
    """`wanted`, or the model that waits longest, if some model would begin too late after `wanted`.

    The clocks give the order; whoever is set back to zero fits in any case.
    """
    elsewhere = snapshot.elsewhere
    clocks = [
        (clock, model)
        for model, clock in snapshot.residency.alone.items()
        if model in quanta and not elsewhere.get(model, 0) and model != snapshot.residency.model
    ]
    clocks.sort(key=lambda entry: (-entry[0], entry[1]))
    end = sum(quanta.values()) + over + _ROUNDING
    done = quanta[wanted]
    for clock, model in clocks:
        if model == wanted:
            continue
        done += quanta[model]
        if clock + done > end:
            return clocks[0][1]
    return wanted


def _newcomer(window: _Window) -> tuple[Lane, Need] | None:
    for lane, needs in window:
        if lane.newcomer:
            return lane, min(needs, key=_HEAD)
    return None


def _first(window: _Window, model: str | None) -> tuple[Lane, Need]:
    """The first lane with a head for `model`, or for none; in it, the older of those."""
    for lane, needs in window:
        fitting = [need for need in needs if need.model is None or need.model == model]
        if fitting:
            return lane, min(fitting, key=_HEAD)
    raise AssertionError("a turn is made only to what the window has")


def _after(snapshot: Snapshot, pending: Mapping[str, float], turn: _Turn, need: Need) -> Residency:
    """The memory after `need`'s head was taken: the clocks of all that wait go on, others are forgotten."""
    memory, elsewhere = snapshot.residency, snapshot.elsewhere
    if need.model is None:
        return Residency(
            model=memory.model,
            spent=memory.spent,
            passed={model: clock for model, clock in memory.passed.items() if model in pending},
            alone={
                model: clock
                for model, clock in memory.alone.items()
                if model in pending and not elsewhere.get(model, 0)
            },
        )
    waiting = [model for model in pending if model != need.model]
    return Residency(
        model=need.model,
        spent=turn.spent + need.head_cost,
        passed={model: memory.passed.get(model, 0.0) + need.head_cost for model in waiting},
        alone={
            model: memory.alone.get(model, 0.0) + need.head_cost
            for model in waiting
            if not elsewhere.get(model, 0)
        },
    )
