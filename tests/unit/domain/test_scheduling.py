"""The rules of the choice, one by one, and what holds for every snapshot."""

import math
import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_api_service.domain.scheduling import (
    DEFAULT_LOAD_SECONDS,
    ENTRY,
    MAX_LANES,
    QUANTUM_LOADS,
    Choice,
    Lane,
    Need,
    Residency,
    Snapshot,
    choose,
    corrected,
    entering,
    given_back,
    standing,
)

QUANTUM = QUANTUM_LOADS * DEFAULT_LOAD_SECONDS
WINDOW = 60.0


def need(
    model: str | None, head: str = "job_1", *, queued: int = 1, priority: int = 0, cost: float = 3.0
) -> Need:
    return Need(f"needs {model} {head}", model, queued, head, priority, cost)


def lane(account: str, vtime: float, *needs: Need, weight: float = 1.0, newcomer: bool = False) -> Lane:
    return Lane(account, vtime, weight, needs, newcomer)


def chosen(
    *lanes: Lane, residency: Residency | None = None, elsewhere: dict[str, int] | None = None
) -> Choice:
    choice = choose(Snapshot(lanes, WINDOW, residency or Residency(), elsewhere or {}))
    assert choice is not None
    return choice


# One rule at a time.


def test_nothing_ready() -> None:
    assert choose(Snapshot((), WINDOW)) is None
    assert choose(Snapshot((lane("a", 0.0),), WINDOW)) is None


def test_the_choice_says_what_the_claim_writes() -> None:
    assert chosen(lane("a", 5.0, need("m", cost=6.0), weight=4.0)) == Choice(
        account="a",
        requirement="needs m job_1",
        job="job_1",
        model="m",
        cost=6.0,
        start_tag=5.0,
        vtime=6.5,
        residency=Residency("m", 6.0),
    )


def test_the_lane_that_is_due_goes_and_ties_go_by_account() -> None:
    assert chosen(lane("b", 1.0, need("m")), lane("a", 2.0, need("m"))).account == "b"
    assert chosen(lane("b", 1.0, need("m")), lane("a", 1.0, need("m"))).account == "a"


def test_the_loaded_model_goes_first_within_the_window() -> None:
    due, inside = lane("a", 0.0, need("x", queued=99)), lane("b", WINDOW, need("m"))
    assert chosen(due, inside, residency=Residency("m", QUANTUM - 1)).account == "b"


def test_not_beyond_the_window() -> None:
    due, outside = lane("a", 0.0, need("x")), lane("b", WINDOW + 0.001, need("m", queued=99))
    assert chosen(due, outside, residency=Residency("m")).account == "a"


def test_not_beyond_the_most_lanes_of_a_snapshot() -> None:
    lanes = [lane(f"a{index:03}", index * 0.1, need("x")) for index in range(MAX_LANES)]
    assert chosen(*lanes, lane("b", 10.0, need("m")), residency=Residency("m")).account == "a000"


def test_a_spent_quantum_turns_the_backend_to_the_most_pending_work() -> None:
    lanes = (
        lane("a", 0.0, need("x", queued=3)),
        lane("b", 1.0, need("y", queued=2)),
        lane("c", 2.0, need("y", queued=2), need("m", queued=3)),
    )
    choice = chosen(*lanes, residency=Residency("m", QUANTUM))
    assert (choice.model, choice.account) == ("y", "b")
    assert choice.residency == Residency("y", 3.0, {"x": 3.0, "m": 3.0}, {"x": 3.0, "m": 3.0})


def test_pending_work_is_jobs_times_cost() -> None:
    lanes = lane("a", 0.0, need("x", queued=3, cost=2.0)), lane("b", 0.0, need("y", queued=2, cost=4.0))
    assert chosen(*lanes).model == "y"


def test_a_model_that_is_loaded_elsewhere_counts_less_by_the_square() -> None:
    lanes = lane("a", 0.0, need("x", queued=8)), lane("b", 1.0, need("y", queued=1))
    assert chosen(*lanes, elsewhere={"x": 1}).model == "x"
    assert chosen(*lanes, elsewhere={"x": 2}).model == "y"


def test_the_loaded_model_may_follow_itself() -> None:
    lanes = lane("a", 0.0, need("x")), lane("b", 1.0, need("m", queued=9))
    choice = chosen(*lanes, residency=Residency("m", QUANTUM + 2.0))
    assert choice.model == "m"
    assert choice.residency.spent == 2.0 + 3.0
    """What ran over is taken off the new quantum."""


def test_alone_the_loaded_model_begins_a_new_quantum() -> None:
    choice = chosen(lane("a", 0.0, need("m")), residency=Residency("m", QUANTUM))
    assert choice.residency == Residency("m", 3.0)


def test_a_quantum_that_ended_for_lack_of_work_leaves_nothing_over() -> None:
    assert chosen(lane("a", 0.0, need("x")), residency=Residency("m", 9.0)).residency == Residency("x", 3.0)


def test_measured_loading_times_make_the_quantum() -> None:
    snapshot = Snapshot(
        (lane("a", 0.0, need("x", queued=9)), lane("b", 1.0, need("m"))),
        WINDOW,
        Residency("m", 10.0),
        load_times={"m": 1.0, "x": 1.0},
    )
    choice = choose(snapshot)
    assert choice is not None
    assert choice.model == "x"
    choice = choose(replace(snapshot, load_times={"m": 1.1, "x": 1.0}))
    assert choice is not None
    assert choice.model == "m"


def test_a_model_passed_over_for_the_quanta_of_all_others_goes_next() -> None:
    lanes = lane("a", 0.0, need("x", queued=99)), lane("b", 1.0, need("y")), lane("c", 2.0, need("m"))
    elsewhere = {"y": 1}
    passed = Residency("m", QUANTUM, passed={"y": 2 * QUANTUM})
    assert chosen(*lanes, residency=passed, elsewhere=elsewhere).model == "y"
    passed = Residency("m", QUANTUM, passed={"y": 2 * QUANTUM - 1})
    assert chosen(*lanes, residency=passed, elsewhere=elsewhere).model == "x"


def test_no_turn_that_would_make_another_model_late() -> None:
    lanes = lane("a", 0.0, need("x", queued=99)), lane("b", 1.0, need("y")), lane("c", 2.0, need("z"))
    in_time = Residency("m", QUANTUM, alone={"y": QUANTUM, "z": 0.0})
    assert chosen(*lanes, residency=in_time).model == "x"
    late = Residency("m", QUANTUM, alone={"y": QUANTUM + 1, "z": 0.0})
    assert chosen(*lanes, residency=late).model == "y"
    """After x it would begin later than the quanta of x and z together."""
    assert chosen(*lanes, residency=late, elsewhere={"y": 1}).model == "x"


def test_the_clock_of_a_model_that_another_backend_loads_is_set_back() -> None:
    lanes = lane("a", 0.0, need("m")), lane("b", 1.0, need("y"))
    memory = Residency("m", 9.0, {"y": 9.0}, {"y": 9.0})
    after = chosen(*lanes, residency=memory, elsewhere={"y": 1}).residency
    assert after == Residency("m", 12.0, {"y": 12.0}, {})


def test_models_without_work_in_the_window_are_forgotten() -> None:
    memory = Residency("m", 9.0, {"gone": 9.0, "far": 9.0}, {"gone": 9.0, "far": 9.0})
    lanes = lane("a", 0.0, need("m"), need(None, "job_0", queued=1)), lane("b", WINDOW + 1, need("far"))
    assert chosen(*lanes, residency=memory).residency == Residency("m", 9.0)


def test_priority_within_a_lane_comes_before_the_loaded_model() -> None:
    mixed = lane("a", 0.0, need("m", "job_1"), need("x", "job_2", priority=1))
    assert chosen(mixed, residency=Residency("m")).job == "job_2"
    other = lane("b", 1.0, need("m", "job_3"))
    assert chosen(mixed, other, residency=Residency("m")).job == "job_3"


def test_work_behind_a_higher_priority_is_neither_pending_nor_waiting() -> None:
    mixed = lane("a", 0.0, need("m", "job_1", queued=99), need("x", "job_2", priority=1))
    choice = chosen(mixed, lane("b", 1.0, need("y", "job_3", queued=2)))
    assert choice.model == "y"
    assert set(choice.residency.passed) == {"x"}


def test_of_two_needs_for_one_model_the_older_job_goes() -> None:
    assert chosen(lane("a", 0.0, need("m", "job_2"), need("m", "job_1"))).job == "job_1"


def test_a_job_without_model_goes_when_its_lane_is_due_and_leaves_the_residency() -> None:
    memory = Residency("m", 9.0, {"x": 4.0}, {"x": 4.0})
    plain, loaded, other = lane("a", 0.0, need(None)), lane("b", 1.0, need("m")), lane("c", 2.0, need("x"))
    choice = chosen(plain, loaded, other, residency=memory)
    assert (choice.account, choice.model, choice.residency) == ("a", None, memory)
    assert chosen(loaded, replace(plain, vtime=1.5), other, residency=memory).account == "b"


def test_a_job_without_model_causes_no_turn() -> None:
    spent = Residency("m", QUANTUM, {"x": 4.0}, {"x": 4.0})
    plain, other = lane("a", 0.0, need(None)), lane("b", 1.0, need("x"))
    assert chosen(plain, other, residency=spent).residency == spent
    assert chosen(plain).residency == Residency()


def test_a_newcomer_goes_when_the_backend_turns() -> None:
    crowd = lane("a", 0.0, need("x", queued=99), need("m", queued=99))
    new = lane("b", 1.0, need("y"), newcomer=True)
    assert chosen(crowd, new, residency=Residency("m", QUANTUM)).account == "b"
    assert chosen(crowd, new, residency=Residency("m", QUANTUM - 1)).account == "a"
    assert chosen(crowd, replace(new, newcomer=False), residency=Residency("m", QUANTUM)).account == "a"


def test_a_newcomer_makes_no_model_late() -> None:
    lanes = lane("a", 0.0, need("x")), lane("b", 1.0, need("y"), newcomer=True)
    assert chosen(*lanes, residency=Residency("m", QUANTUM, alone={"x": 1.0})).model == "x"


def test_a_newcomers_job_without_model_goes_when_the_backend_turns() -> None:
    spent = Residency("m", QUANTUM)
    new = lane("b", 1.0, need(None), newcomer=True)
    choice = chosen(lane("a", 0.0, need("x")), new, residency=spent)
    assert (choice.account, choice.residency) == ("b", spent)


def test_a_lane_that_enters_has_saved_nothing_up() -> None:
    assert entering(0.0, 1000.0, 100.0) == 1000.0 - ENTRY * 100.0
    assert entering(950.0, 1000.0, 100.0) == 950.0
    assert entering(0.0, 0.0, 100.0) == 0.0


def test_corrections() -> None:
    assert corrected(10.0, estimated=3.0, real=5.0, weight=4.0) == 10.5
    assert corrected(10.0, estimated=3.0, real=1.0, weight=2.0) == 9.0
    assert given_back(10.0, estimated=3.0, weight=2.0) == 8.5


def test_memory_as_json() -> None:
    memory = Residency("m", 9.0, {"x": 1.0}, {"x": 0.5})
    assert memory.to_json() == {"model": "m", "spent": 9.0, "passed": {"x": 1.0}, "alone": {"x": 0.5}}
    assert Residency.from_json(memory.to_json()) == memory
    assert Residency.from_json(None) == Residency()
    assert Residency.from_json({"model": "m"}) == Residency("m")


# Whatever the snapshot.

MODELS = [None, "a", "b", "c", "d"]
seconds = st.floats(0.1, 50)


@st.composite
def lanes_of(draw: st.DrawFn) -> tuple[Lane, ...]:
    lanes = []
    for index in range(draw(st.integers(1, 8))):
        needs = [
            Need(
                f"{number}",
                model,
                draw(st.integers(1, 9)),
                f"job_{index}{number}",
                draw(st.integers(0, 1)),
                cost,
            )
            for number, (model, cost) in enumerate(
                draw(st.lists(st.tuples(st.sampled_from(MODELS), seconds), min_size=1, max_size=4))
            )
        ]
        vtime, weight = draw(st.floats(0, 150)), draw(st.sampled_from([0.5, 1.0, 8.0]))
        lanes.append(Lane(f"acc_{index}", vtime, weight, tuple(needs), draw(st.booleans())))
    return tuple(lanes)


clocks = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "gone"]), st.floats(0, 500), max_size=5)
snapshots = st.builds(
    Snapshot,
    lanes=lanes_of(),
    window=st.floats(0, 100),
    residency=st.builds(Residency, st.sampled_from([*MODELS, "gone"]), st.floats(0, 200), clocks, clocks),
    elsewhere=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 3)),
    load_times=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.floats(0.1, 20)),
)


@given(snapshots, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(snapshot: Snapshot, chance: random.Random) -> None:
    lanes = [
        replace(lane, needs=tuple(chance.sample(lane.needs, len(lane.needs)))) for lane in snapshot.lanes
    ]
    chance.shuffle(lanes)
    other, choice = choose(replace(snapshot, lanes=tuple(lanes))), choose(snapshot)
    assert choice is not None
    assert other is not None
    assert (other.job, other.residency.model, other.vtime) == (
        choice.job,
        choice.residency.model,
        choice.vtime,
    )


@given(snapshots)
def test_every_choice_keeps_the_rules(snapshot: Snapshot) -> None:
    choice = choose(snapshot)
    assert choice is not None
    lane = next(lane for lane in snapshot.lanes if lane.account == choice.account)
    need = next(need for need in lane.needs if need.requirement == choice.requirement)
    least = min(lane.vtime for lane in snapshot.lanes)
    memory, after = snapshot.residency, choice.residency
    assert (choice.job, choice.model, choice.cost) == (need.head, need.model, need.head_cost)
    assert choice.start_tag == lane.vtime <= least + snapshot.window
    assert choice.vtime == lane.vtime + need.head_cost / lane.weight
    assert all(other.head_priority <= need.head_priority for other in lane.needs)
    assert Residency.from_json(after.to_json()) == after

    window = [lane for lane in snapshot.lanes if lane.vtime <= least + snapshot.window]
    able = {
        need.model
        for lane in window
        for need in lane.needs
        if need.head_priority == max(other.head_priority for other in lane.needs)
    }
    assert set(after.passed) <= able
    assert set(after.alone) <= able - set(snapshot.elsewhere)
    if choice.model is None:
        assert (after.model, after.spent) == (memory.model, memory.spent)
        assert all(memory.passed[model] == clock for model, clock in after.passed.items())
    else:
        assert after.model == choice.model
        assert choice.model not in after.passed
        assert set(after.passed) == able - {choice.model, None}
    quantum = QUANTUM_LOADS * snapshot.load_times.get(memory.model or "", DEFAULT_LOAD_SECONDS)
    if memory.model in able - {None} and memory.spent < quantum:
        assert choice.model in {memory.model, None}


@given(snapshots, st.floats(0, 1))
def test_a_choice_stands_as_long_as_its_lane_does(snapshot: Snapshot, share: float) -> None:
    """Whatever ends or begins meanwhile: chosen anew, it would be the same, and never outside of the window."""
    choice = choose(snapshot)
    assert choice is not None
    lowest, highest = standing(snapshot, choice)
    assert lowest <= choice.start_tag <= highest
    low, high = max(lowest, choice.start_tag - 1e3), min(highest, choice.start_tag + 1e3)
    moved = low + (high - low) * share
    lanes = tuple(
        replace(lane, vtime=moved) if lane.account == choice.account else lane for lane in snapshot.lanes
    )
    assert moved <= min(lane.vtime for lane in lanes) + snapshot.window
    if lowest == -math.inf or moved in {lane.vtime for lane in snapshot.lanes}:
        return  # where the window ends is another place; ties go by account
    again = choose(replace(snapshot, lanes=lanes))
    assert again is not None
    assert (again.job, again.residency) == (choice.job, choice.residency)


# One backend over time, with the worst arrivals that can be found.


@dataclass
class Wait:
    """A model with work in the window that the backend does not take."""

    seconds: float = 0.0
    others: set[str] = field(default_factory=set)


arrivals = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from([None, "a", "b", "c", "d", "e"]), st.integers(1, 40), seconds
    ),
    max_size=3,
)


@given(
    st.lists(
        st.tuples(arrivals, st.integers(1, 30), st.sets(st.sampled_from("abcde"), max_size=1)), max_size=15
    ),
    st.dictionaries(st.sampled_from("abcde"), st.floats(5, 15)),
)
@settings(deadline=None)
def test_no_model_waits_longer_than_the_quanta_of_all_others(
    steps: list[tuple[list[tuple[int, str | None, int, float]], int, set[str]]], load_times: dict[str, float]
) -> None:
    """In estimated seconds given to others, plus one job, while no other backend has it loaded.

    No job is longer than a quantum; "others" are those that had work in the window meanwhile.
    """
    costliest = 50.0
    queues: dict[int, list[tuple[str | None, float]]] = {account: [] for account in range(4)}
    vtimes = dict.fromkeys(queues, 0.0)
    waits: dict[str, Wait] = {}
    residency = Residency()
    for new, claims, elsewhere in steps:
        for account, model, count, cost in new:
            queues[account] += [(model, cost)] * count
        for _ in range(claims):
            lanes = tuple(
                _lane_of(account, vtimes[account], queue) for account, queue in queues.items() if queue
            )
            snapshot = Snapshot(lanes, 1e9, residency, dict.fromkeys(elsewhere, 1), load_times)
            choice = choose(snapshot)
            if choice is None:
                break
            account = int(choice.account)
            queues[account].remove((choice.model, choice.cost))
            vtimes[account], residency = choice.vtime, choice.residency
            working = {need.model for lane in lanes for need in lane.needs if need.model is not None}
            if choice.model is None:
                waits = {model: wait for model, wait in waits.items() if model in working - elsewhere}
                continue
            waits = {model: waits.get(model, Wait()) for model in working - elsewhere - {choice.model}}
            for model, wait in waits.items():
                wait.others |= working - {model}
                wait.seconds += choice.cost
                bound = sum(
                    QUANTUM_LOADS * load_times.get(other, DEFAULT_LOAD_SECONDS) for other in wait.others
                )
                assert wait.seconds <= bound + costliest


def _lane_of(account: int, vtime: float, queue: list[tuple[str | None, float]]) -> Lane:
    needs = []
    for model, cost in sorted(set(queue), key=lambda entry: (str(entry[0]), entry[1])):
        needs.append(
            Need(f"{model} {cost}", model, queue.count((model, cost)), f"job_{model}{cost}", 0, cost)
        )
    return Lane(str(account), vtime, 1.0, tuple(needs))


def test_every_model_has_its_turn_in_time_when_all_have_work_for_ever() -> None:
    """The bound is reached: with the pending work all on one side, each other model gets just its promise."""
    models = "abcdefgh"
    lanes = tuple(lane(model, 0.0, need(model, queued=10**6 if model == "a" else 1)) for model in models)
    residency, last, longest = Residency(), dict.fromkeys(models, 0.0), 0.0
    clock = 0.0
    for _ in range(3000):
        choice = choose(Snapshot(lanes, 1e9, residency))
        assert choice is not None
        assert choice.model is not None
        longest = max(longest, clock - last[choice.model])
        clock += choice.cost
        last[choice.model], residency = clock, choice.residency
    assert longest == pytest.approx((len(models) - 1) * QUANTUM, abs=3.0)
