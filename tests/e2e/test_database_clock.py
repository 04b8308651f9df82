"""The database's clock may be set by an hour, or by a year: nothing that is done asks for it."""

import ast
import re
from pathlib import Path
from typing import Final

from tests.e2e.test_survival import until_status
from tests.support.postgres import PostgresServer, server
from tests.support.processes import api, client, simulator, until_online, worker

import comfy_api_service

SOURCES: Final = Path(comfy_api_service.__file__).parent
ASKS: Final = re.compile(
    r"\bnow\s*\(|\b(current|local)_?(timestamp|time|date)\b|\b(clock|statement|transaction)_timestamp\b|\btimeofday\b"
    r"|'(now|today|tomorrow|yesterday)'|\bjulianday\b|\bunixepoch\b|\bstrftime\s*\(|\b(date)?time\s*\(|\bage\s*\(",
    re.IGNORECASE,
)
"""How SQL gets at the time, in PostgreSQL or in SQLite."""
SQL: Final = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|VALUES|WHERE|SET|DEFAULT|CASE|JOIN)\b")
STATEMENT: Final = re.compile(r"LOG:  (?:statement|execute [^:]*): (.*?)(?=\n\S|\Z)", re.DOTALL)


def asking(text: str) -> list[str]:
    return [found.group() for found in ASKS.finditer(text)]


def test_what_asks_is_recognised() -> None:
    for sql in ("SELECT now()", "SELECT CURRENT_TIMESTAMP", "VALUES (timestamptz 'now')", "SELECT localtime",
                "SELECT clock_timestamp() - age(x)", "SELECT datetime('now')", "SELECT unixepoch()"):  # fmt: skip
        assert asking(sql), sql
    assert not asking("UPDATE jobs SET started_at = :now, current_node = 'time' WHERE time_limit < :now")


def test_no_statement_of_the_code_asks_for_the_time() -> None:
    """On either database; also as a column's default."""
    statements = 0
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value):
                statements += 1
                assert not asking(node.value), f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Attribute):  # SQLAlchemy's way to say it
                assert ast.unparse(node) not in {"func.now", "sa.func.now", "func.current_timestamp"}, path
    assert statements > 100


def test_no_statement_that_the_commands_execute_asks_for_the_time(tmp_path: Path) -> None:
    """As the server's own log has them, of an API process and two workers from their start to their end."""
    with server(log_statement="all", log_min_messages="log") as logged:
        logged.execute("CREATE DATABASE service")
        environment = {"DATABASE_URL": logged.url("service")}
        with (
            simulator(tmp_path, "--seconds-per-step", "0.02", "--seconds-per-load", "0") as sim,
            api(tmp_path, **environment) as door,
            client(door) as http,
            worker(tmp_path, "--comfyui-url", sim.url, **environment) as first,
            worker(tmp_path, "--comfyui-url", sim.url, **environment) as second,
        ):
            until_online(http)
            body = {"prompt": "a lighthouse", "steps": 20, "width": 64, "height": 64}
            jobs = [http.post("/api/v1/jobs", json=body).json()["job_id"] for _ in range(4)]
            http.delete(f"/api/v1/jobs/{jobs[-1]}")
            http.post("/api/v1/generate/batch", json={"requests": [body, body]})
            for job in jobs:
                until_status(http, job, "succeeded", "canceled")
            http.get("/api/v1/jobs", params={"status": "succeeded", "limit": 2})
            assert (first.terminate(), second.terminate(), door.terminate()) == (0, 0, 0)
        executed = statements_of(logged)
        assert len(executed) > 30
        assert any("SET counter = counter + 1" in one for one in executed)
        assert any("SET state = 'dispatched'" in one for one in executed)
        assert not [one for one in executed if asking(one)]
        logged.execute("SELECT now()", "service")
        assert [one for one in statements_of(logged) if asking(one)] == ["SELECT now()"]


def statements_of(logged: PostgresServer) -> set[str]:
    return {found.strip() for found in STATEMENT.findall((logged._folder / "log").read_text())}
