"""Who is dead, and who drives what."""

from hypothesis import given
from hypothesis import strategies as st

from comfy_api_service.domain.leases import DEAD_SECONDS, GAP_SECONDS, LATE_SECONDS, Watch, shared_out


def watched(*readings: tuple[float, int], late: float = 0.0) -> dict[str, int]:
    """What a watch says after readings of one counter at these seconds."""
    watch = Watch()
    for at, counter in readings:
        watch = watch.read({"w": counter}, began=at, ended=at + late)
    return watch.dead()


def test_a_counter_that_stands_still_for_long_enough_is_a_dead_workers() -> None:
    assert watched(*((float(at), 7) for at in range(11))) == {"w": 7}
    assert watched(*((float(at), 7) for at in range(10))) == {}


def test_a_counter_that_moves_is_a_living_workers() -> None:
    assert watched(*((float(at), at // 5) for at in range(60))) == {}


def test_only_what_was_watched_without_a_break_counts() -> None:
    gap = 5.0 + GAP_SECONDS + 0.1
    assert watched(*((float(at), 7) for at in range(6)), *((gap + at, 7) for at in range(9))) == {}
    late = LATE_SECONDS + 0.1
    assert watched(*((float(at), 7) for at in range(30)), late=late) == {}
    assert Watch().dead() == {}


def test_the_time_counts_from_when_the_first_reading_came() -> None:
    watch = Watch().read({"w": 1}, began=0.0, ended=1.9)
    for at in range(2, 12):
        watch = watch.read({"w": 1}, began=float(at), ended=float(at))
    assert watch.dead() == {}
    assert watch.read({"w": 1}, began=1.9 + DEAD_SECONDS, ended=12.0).dead() == {"w": 1}


def test_who_is_not_listed_any_more_is_forgotten() -> None:
    watch = Watch().read({"w": 1}, began=0.0, ended=0.0)
    for at in range(1, 10):
        watch = watch.read({"w": 1} if at != 5 else {}, began=float(at), ended=float(at))
    assert watch.read({"w": 1}, began=10.5, ended=10.5).dead() == {}


def test_a_pool_is_shared_out_evenly_and_what_is_held_stays() -> None:
    both = frozenset("abcd")
    scopes = {"one": both, "two": both}
    assert shared_out(scopes, dict.fromkeys("abcd")) == {"a": "one", "b": "two", "c": "one", "d": "two"}
    held = {"a": "two", "b": "two", "c": "one", "d": "one"}
    assert shared_out(scopes, held) == held
    assert shared_out({"one": both}, held) == dict.fromkeys("abcd", "one")


def test_a_backend_that_one_alone_can_reach_is_that_ones() -> None:
    scopes = {"one": frozenset("ab"), "two": frozenset("bc")}
    assert shared_out(scopes, dict.fromkeys("abcd")) == {"a": "one", "b": "one", "c": "two"} | {"b": "one"}


NAMES = st.sampled_from("uvwxyz")
BACKENDS = st.sampled_from("abcdefgh")
POOLS = st.tuples(
    st.dictionaries(NAMES, st.frozensets(BACKENDS), max_size=5),
    st.dictionaries(BACKENDS, st.none() | NAMES, max_size=8),
)


@given(POOLS)
def test_every_backend_that_somebody_may_drive_has_one_driver(
    pool: tuple[dict[str, frozenset[str]], dict[str, str | None]],
) -> None:
    scopes, held = pool
    wanted = shared_out(scopes, held)
    assert wanted.keys() == {one for one in held if any(one in scope for scope in scopes.values())}
    assert all(backend in scopes[worker] for backend, worker in wanted.items())
    numbers = {worker: sum(driver == worker for driver in wanted.values()) for worker in scopes}
    for backend, worker in wanted.items():
        others = [numbers[other] for other, scope in scopes.items() if backend in scope]
        assert numbers[worker] - min(others) <= 1
    assert shared_out(scopes, held | wanted) == wanted, "it does not come to rest"
