"""The campaign's own parts: every side effect has its failpoint, lines fail as told, the page says what was run."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.chaos import __main__ as entry
from tests.chaos import campaign, report, settable_clock, sites
from tests.chaos.launcher import FOLDER, NAME
from tests.chaos.matrix import Column, Row, Senseless, cells, matrix
from tests.chaos.proxy import Line, lines
from tests.chaos.scene import ROOT
from tests.chaos.trap import FIRED, ORDERS
from tests.chaos.trials.trial import all_trials


def test_every_cell_is_run_or_has_its_reason() -> None:
    for row in matrix():
        for column in Column:
            cell = row.cells[column]
            assert (row.name, column) in cells() or (isinstance(cell, Senseless) and cell.reason)
    with pytest.raises(ValueError, match="says nothing of"):
        Row("half", 1, {Column.KILLED: Senseless("why")})


def test_every_implementation_of_the_outside_has_failpoints() -> None:
    assert {one.__name__ for one in sites.databases()} == {"SqliteDatabase", "PostgresDatabase"}
    assert {one.__name__ for one in sites.stores()} == {"LocalStorage", "S3Storage"}
    assert {one.__name__ for one in sites.carriers()} == {"MemorySignals", "RedisSignals"}


def test_failpoints_are_found_in_the_code() -> None:
    points = sites.points()
    for point in ("db.Submissions._insert.inside", "db.next_job.after", "db.Reporter.finish.before",
                  "comfyui.submit.after", "store.put.before", "signal.publish.after"):  # fmt: skip
        assert point in points
    assert "redis.ask.before" in sites.points(shared=True)
    assert "redis.ask.before" not in points
    known = {"db": sites.writes(), "comfyui": set(sites.CALLS), "store": set(sites.STORES)}
    for name in sites.RARE:
        kind, _, rest = name.partition(".")
        assert rest in known[kind], f"{name} is no site any more"


PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from tests.chaos import trap
from comfy_api_service.signals.memory import MemorySignals
trap.install(Path(os.environ["CHAOS_FOLDER"]), os.environ["CHAOS_NAME"])
signals = MemorySignals()
print("begun", flush=True)
signals.wake()
print(signals.wakes, flush=True)
"""


def trapped(folder: Path, orders: str, name: str = "worker 1") -> subprocess.CompletedProcess[str]:
    (folder / ORDERS).write_text(orders)
    (folder / FIRED).touch()
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ROOT), FOLDER: str(folder), NAME: name},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_failpoint_kills_once_and_only_where_it_was_ordered(tmp_path: Path) -> None:
    order = '[{"id": "o1", "point": "signal.wake.before", "action": "kill", "who": "worker"}]'
    other = trapped(tmp_path, order, "API 1")
    assert (other.returncode, other.stdout) == (0, "begun\n1\n")
    killed = trapped(tmp_path, order)
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "begun\n")
    assert (tmp_path / FIRED).read_text().split() == ["o1"]
    spared = trapped(tmp_path, order)
    assert (spared.returncode, spared.stdout) == (0, "begun\n1\n")


def test_a_failpoint_raises_what_its_other_side_would(tmp_path: Path) -> None:
    failed = trapped(tmp_path, '[{"id": "o1", "point": "signal.wake.after", "action": "raise", "who": ""}]')
    assert failed.returncode == 1
    assert "ConnectionError" in failed.stderr


def test_the_clock_is_set_slowed_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    settable_clock.set_clock(tmp_path, offset=-3600)
    wall = settable_clock.Wall(tmp_path)
    assert wall.now() == 1_000_000 - 3600
    settable_clock.set_clock(tmp_path, rate=0.5)
    now += 10
    assert wall.now() == 1_000_005
    settable_clock.set_clock(tmp_path, rate=0.0)
    now += 10
    assert wall.now() == 1_000_010


class Echo:
    """A server that sends back what it gets, and says how many connections there were."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def line() -> Iterator[Line]:
    echo = Echo()
    with lines() as make:
        one = make()
        one.lead_to(echo.port)
        yield one
    echo.close()


def connected(line: Line) -> socket.socket:
    return socket.create_connection(("127.0.0.1", line.port), timeout=10)


def test_a_line_passes_on_and_halves(line: Line) -> None:
    with connected(line) as client:
        client.sendall(b"0123456789")
        assert client.recv(100) == b"0123456789"
        line.halve(1)
        client.sendall(b"0123456789")
        assert client.recv(100) == b"01234"
        assert client.recv(100) == b""
    assert line.halves_left() == 0


def test_a_line_refuses_cuts_and_heals(line: Line) -> None:
    with connected(line) as client:
        client.sendall(b"here")
        assert client.recv(100) == b"here"
        line.refuse()
        with pytest.raises(ConnectionRefusedError):
            connected(line)
        line.cut()
        assert _gone(client)
    line.heal()
    with connected(line) as client:
        client.sendall(b"again")
        assert client.recv(100) == b"again"


def _gone(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_line_holds_without_losing_and_swallows_without_telling(line: Line) -> None:
    with connected(line) as client:
        line.hold()
        client.sendall(b"late")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(100)
        line.heal()
        client.settimeout(10)
        assert client.recv(100) == b"late"
        line.swallow()
        client.sendall(b"lost")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(100)
        line.heal()
        client.settimeout(10)
        assert _gone(client)


def result(row: str, column: Column, seed: int, **more: Any) -> dict[str, Any]:
    counts = {"signals": 1, "jobs": 9, "lost": 0, "doubled": 0, "stuck": 0, "wrong": 0, **more}
    return {"row": row, "column": str(column), "seed": seed, "faults": {"a": 2, "b": 1}, **counts}


def test_the_page_gets_what_was_run_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Before\n{report.BEGIN}\nold\n{report.END}\nAfter\n", encoding="utf-8")
    table = report.lines(
        [
            result("clock", Column.LOST, 0),
            result("SQLite", Column.KILLED, 1, lost=1),
            result("SQLite", Column.KILLED, 0),
        ]
    )
    report.write(table, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before\n")
    assert text.endswith("After\n")
    assert "old" not in text
    assert "3 runs of 2 cells: 9 faults, 3 of them signals to processes, over 27 jobs; 1 lost," in text
    assert text.index("| SQLite | kill -9 | 2 | 6 | 2 | 18 | 1 |") < text.index("| clock | data lost | 1 |")
    report.write(table, page)
    assert page.read_text(encoding="utf-8") == text


MADE = {"faults": {"a": 3}, "signals": 2, "found": [], "missed": [], "seconds": 1.0}


def made(task: campaign.Task, **more: Any) -> dict[str, Any]:
    """What a run tells that made faults enough."""
    return {**result(task[0], Column.LOST, task[2]), "column": task[1], **MADE, **more}


@pytest.mark.parametrize(
    ("few", "lacks"),
    [
        ({}, []),
        ({"faults": {"a": 1}}, ["faults of 500", "2 of 3 in clock: data lost"]),
        ({"signals": 0}, ["0 signals of 100"]),
    ],
)
def test_a_campaign_with_too_few_faults_ends_with_1_and_writes_no_table(
    few: dict[str, Any],
    lacks: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def results(tasks: list[campaign.Task], *_: object) -> Iterator[dict[str, Any]]:
        return (made(task, **few) for task in tasks)

    written: list[object] = []
    monkeypatch.setattr(campaign, "results", results)
    monkeypatch.setattr(report, "write", written.append)
    monkeypatch.setattr(sys, "argv", ["chaos", "--state", str(tmp_path / "state")])
    assert entry.main() == bool(lacks)
    assert bool(written) == (not lacks)
    told = capsys.readouterr().out
    assert ("Too few faults" in told) == bool(lacks)
    assert all(text in told for text in lacks)


def test_a_cell_with_too_few_faults_is_named_and_a_trial_may_have_fewer() -> None:
    table = report.lines([made(task) for task in campaign.tasks(2)])
    assert report.too_few(table) == ""
    for line in table:
        if line["row"] in all_trials() or (line["row"], line["column"]) == ("clock", "data lost"):
            line["faults"] = 2
    assert report.too_few(table) == "Too few faults, so no table is written: 2 of 3 in clock: data lost."


def test_runs_of_other_code_are_not_counted(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text('{"code": "a", "row": "x", "column": "y", "seed": 0}\n')
    assert list(campaign.known(state, "a")) == [("x", "y", 0)]
    assert campaign.known(state, "b") == {}
    assert campaign.known(tmp_path / "none", "a") == {}


def test_trials_are_run_once_and_stand_below_the_matrix() -> None:
    tasks = campaign.tasks(2)
    assert len(tasks) == len(set(tasks)) == 2 * len(cells()) + len(all_trials())
    assert not all_trials().keys() & {row.name for row in matrix()}
    trial = next(iter(all_trials().values()))
    story = {**result("clock", Column.LOST, 0), "row": trial.name, "column": trial.way}
    table = report.lines([story, result("clock", Column.LOST, 0)])
    assert [line["row"] for line in table] == ["clock", trial.name]
    assert "2 runs of 1 cells and 1 trials" in report.as_page(table)


def test_a_change_of_a_trial_lets_the_results_of_cells_stand() -> None:
    assert campaign.code() != campaign.code(trials=True)
    known = Path(campaign.__file__).parent
    depends = [
        path for path in known.rglob("*.py") if "tests.chaos.trials" in path.read_text(encoding="utf-8")
    ]
    assert {path.name for path in depends if not path.is_relative_to(campaign.TRIALS)} <= {
        *campaign.BESIDE,
        "test_trials.py",
        "test_parts.py",
    }
