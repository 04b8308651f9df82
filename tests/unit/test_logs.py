"""Logs tell no prompts: not even where a fault is logged with everything around it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging
import structlog
from comfy_api_service.telemetry import configure_logs
configure_logs(level="INFO", as_json={as_json}, messages={messages})
def submit(prompt):
    raise RuntimeError("in the middle of " + prompt)
try:
    submit("a canary in the prompt")
except RuntimeError:
    structlog.get_logger().exception("unhandled_error")
try:
    try:
        {{}}["a canary as key"]
    except KeyError:
        raise ExceptionGroup("a canary of several", [OSError(13, "denied", "/a/canary"), ValueError("a canary")])
except Exception:
    logging.getLogger("some.library").exception("its own words")
"""


def shown(*, as_json: bool, messages: bool, tmp_path: Path) -> str:
    program = tmp_path / "program"
    program.write_text(PROGRAM.format(as_json=as_json, messages=messages))
    command = [sys.executable, "-c", f"exec(open({str(program)!r}).read())"]  # no source lines to be shown
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("as_json", [True, False])
def test_a_logged_fault_shows_neither_local_variables_nor_what_it_says(as_json: bool, tmp_path: Path) -> None:
    text = shown(as_json=as_json, messages=False, tmp_path=tmp_path)
    assert "canary" not in text
    for word in (
        "RuntimeError",
        "in submit",
        "KeyError",
        "ExceptionGroup",
        "Errno 13",
        "ValueError",
        "its own words",
    ):
        assert word in text, word


@pytest.mark.parametrize("as_json", [True, False])
def test_what_it_says_can_be_switched_on(as_json: bool, tmp_path: Path) -> None:
    text = shown(as_json=as_json, messages=True, tmp_path=tmp_path)
    assert "RuntimeError: in the middle of a canary in the prompt" in text
    assert "prompt =" not in text


TURNS = """
import asyncio, os, sys, threading
import structlog
from comfy_api_service.telemetry import configure_logs
from comfy_api_service.telemetry.lines import HELD_SECONDS
configure_logs(level="INFO", as_json=True)
log = structlog.get_logger()
async def main():
    for number in range(3):
        log.info("held", number=number)
    os.write(2, b"first\\n")
    await asyncio.sleep(2 * HELD_SECONDS)
    os.write(2, b"second\\n")
    log.info("before the warning")
    log.warning("at once")
    os.write(2, b"third\\n")
    thread = threading.Thread(target=lambda: log.info("elsewhere"))
    thread.start()
    thread.join()
    os.write(2, b"fourth\\n")
    log.info("the last word")
    raise SystemExit(0)
asyncio.run(main())
"""


def test_lines_soon_after_each_other_leave_together_warnings_at_once_and_none_is_lost() -> None:
    done = subprocess.run([sys.executable, "-c", TURNS], capture_output=True, text=True, check=True)
    told = [json.loads(line)["event"] if line.startswith("{") else line for line in done.stderr.splitlines()]
    assert told == [
        "first", "held", "held", "held",
        "second", "before the warning", "at once",
        "third", "elsewhere",
        "fourth", "the last word",
    ]  # fmt: skip


LOOPS = """
import asyncio, os, time
import structlog
from comfy_api_service.telemetry import configure_logs
from comfy_api_service.telemetry.lines import HELD_SECONDS
configure_logs(level="INFO", as_json=True)
log = structlog.get_logger()
async def say(word):
    log.info(word)
asyncio.run(say("of the first loop"))
time.sleep(2 * HELD_SECONDS)
asyncio.run(say("of the second"))
os.write(2, b"both are written\\n")
"""


def test_what_a_loop_held_when_it_ended_is_written_with_the_next_line() -> None:
    done = subprocess.run([sys.executable, "-c", LOOPS], capture_output=True, text=True, check=True)
    told = [json.loads(line)["event"] if line.startswith("{") else line for line in done.stderr.splitlines()]
    assert told == ["of the first loop", "of the second", "both are written"]


FINALIZED = """
import asyncio, gc
import structlog
from comfy_api_service.cli.loop import _tell
from comfy_api_service.telemetry import configure_logs
configure_logs(level="INFO", as_json=True)
lines = structlog.get_logger().bind()._logger
async def fail():
    raise RuntimeError
async def main():
    asyncio.get_running_loop().set_exception_handler(_tell)
    gc.collect()
    gc.freeze()
    for number in range(1, 16):
        gc.disable()
        task = asyncio.ensure_future(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        circle = [task]
        circle.append(circle)
        lines._waiting.append(b'{"event": "held"}')
        gc.set_threshold(gc.get_count()[0] + number, 1000, 1000)  # collected at so many containers from here
        del task, circle
        gc.enable()
        lines.flush()
        gc.disable()
        gc.set_threshold(20000)
        gc.collect()
asyncio.run(main())
"""


def test_what_is_logged_by_what_the_collector_finds_while_lines_are_written_holds_up_nothing() -> None:
    command = [sys.executable, "-c", FINALIZED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    told = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert sorted(told) == ["held"] * 15 + ["uncaught_fault"] * 15


POSITIONAL = """
import structlog
from comfy_api_service.telemetry import configure_logs
configure_logs(level="INFO", as_json={as_json})
log = structlog.get_logger()
log.info("%s of %d", "one", 2)
log.info("%(number)d in all", {{"number": 3}})
log.bind(bound="to it").info("100 %", own="too")
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_both_forms_of_the_log_take_what_structlog_takes(as_json: bool) -> None:
    command = [sys.executable, "-c", POSITIONAL.format(as_json=as_json)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    for words in ("one of 2", "3 in all", "100 %", "to it", "too"):
        assert words in told


def test_a_log_that_nobody_reads_any_more_fails_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = PROGRAM.format(as_json=True, messages=False).replace(
        "except RuntimeError:", "except RuntimeError:\n    print('on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program + "\nprint('and on')"],
        stdout=subprocess.PIPE,
        stderr=writing,
        check=True,
    )
    os.close(writing)
    assert done.stdout.split() == [b"on", b"and", b"on"]


REQUESTS = """
import structlog
from comfy_api_service.telemetry import configure_logs
from comfy_api_service.telemetry.context import REQUEST_ID
from comfy_api_service.telemetry.logs import request_lines
seen = []
def see(logger, method, event):
    seen.append(dict(event))
    return event
REQUEST_ID.set("req_1")
for level, processors in (("INFO", []), ("INFO", [see]), ("WARNING", []), ("WARNING", [see])):
    configure_logs(level=level, as_json=True, processors=processors)
    tell = request_lines()
    tell("POST", "/api/v1/jobs", 202, 0.25, "req_1", "job_1", "acc_1")
    tell('G"T', "unmatched", 404, 0.5, "req_1", None, None)
assert len(seen) == 2, "whoever sees every line sees these, too"
"""


def test_the_line_of_a_request_is_the_same_either_way() -> None:
    ended = subprocess.run([sys.executable, "-c", REQUESTS], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    for line in lines:
        assert line.pop("timestamp").endswith("Z")
    assert [list(line) for line in lines[:2]] == [list(line) for line in lines[2:]], "in the same order"
    assert lines[:2] == lines[2:] == [
        {
            "method": "POST",
            "path": "/api/v1/jobs",
            "status": 202,
            "seconds": 0.25,
            "job_id": "job_1",
            "account_id": "acc_1",
            "event": "request",
            "request_id": "req_1",
            "level": "info",
        },
        {
            "method": 'G"T',
            "path": "unmatched",
            "status": 404,
            "seconds": 0.5,
            "event": "request",
            "request_id": "req_1",
            "level": "info",
        },
    ]  # fmt: skip
