"""Words that callers and the operator brought, each of its own kind, searched in all that the service says and leaves.

`MAY_BE` is the table of where each kind may be found; it stands in docs/TRACES.md too. What is searched is told
by a service that was asked in every way, rightly and wrongly, and failed in several: once as one process, which
also tells traces and reports, once as API and worker over PostgreSQL and Valkey.
"""

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil
import pytest
from tests.support.canary import Searched, overhearing, rows, word
from tests.support.collector import Collector, collector
from tests.support.pictures import png
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, client, simulator, until_online
from tests.support.s3 import S3Server, s3_server, s3_settings
from tests.support.schema import copied
from tests.support.valkey import free_port, valkey

ROOT: Final = Path(__file__).parents[2]
QUICK: Final = ("--seconds-per-step", "0.01", "--seconds-per-load", "0")
LIMIT: Final = 60.0
JSON: Final = {"Content-Type": "application/json"}
_OF_JOB: Final = frozenset({"owner", "database", "/admin/jobs"})
_NAMED: Final = frozenset({"errors", "messages"})
MAY_BE: Final[Mapping[str, frozenset[str]]] = {
    "prompt": _OF_JOB,
    "negative": _OF_JOB,
    "embedded": _OF_JOB | {"store"},
    "labelkey": _OF_JOB | {"webhooks"},
    "labelvalue": _OF_JOB | {"webhooks"},
    "idempotency": frozenset({"database"}),
    "graphtext": _OF_JOB,
    "graphtitle": _OF_JOB,
    "nodeid": _OF_JOB | {"redis"},
    "prefix": _OF_JOB,
    "template": _OF_JOB,
    "input": _OF_JOB,
    "explode": _OF_JOB,
    "nodeerror": _OF_JOB,
    "keyname": frozenset({"owner", "database", "/admin/api-keys"}),
    "backend": frozenset({"database"}),
    "hookpath": frozenset({"owner", "database"}),
    "hookquery": frozenset({"owner", "database"}),
    "unknownfield": _NAMED,
    "model": _NAMED,
    "lora": _NAMED,
    "class": _NAMED,
    "filter": _NAMED,
    "host": frozenset({"errors"}),
    "url": frozenset({"errors"}),
}
"""Kinds that are not named may be nowhere at all: not in the database either.

`owner` is what he asks for and gets, `errors` how he is refused, with `messages`, which programs log, alone.
"""
GIVING: Final = ("/webhooks", "/rotate", "/secret", "/login", "/register", "/ticket", "/keys")
"""Ends of paths that answer a POST with a secret, this once."""


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[S3Server]:
    with s3_server(tmp_path / "s3") as server:
        yield server


HOOK = """
def look(request):
    if "refuse" in str(request):
        raise ValueError(str(request))
    return {"action": "allow"}
"""


def environment(folder: Path, sim: Process, store: S3Server) -> dict[str, str]:
    (folder / "tmp").mkdir()
    (folder / "operators.py").write_text(HOOK)
    settings = s3_settings(store.bucket("results"))
    return {
        **{name.upper(): value for name, value in settings.items()},
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        "TMPDIR": str(folder / "tmp"),
        "LOG_LEVEL": "DEBUG",
        "AUTH_ENABLED": "true",
        "REGISTRATION_ENABLED": "true",
        "NODE_POLICY": "open",
        "COMFYUI_URL": sim.url.replace("://", f"://user:{word('backend')}@"),
        "SECRET_KEY": f"{word('setting')}5d0c7a1e94b83f26d75e0a9c41f8b3672",
        "METRICS_TOKEN": word("metricstoken"),
        "PROMPT_HOOK": "python:operators:look",
        "PROMPT_HOOK_ON_FAILURE": "refuse",
        "MAX_BODY_SIZE": "65536",
        "WEBHOOK_ALLOW_PRIVATE": "true",
        "WEBHOOK_RETRY_DELAY": "1",
    }


@dataclass
class Running:
    """The processes of a service, the first of which answers."""

    processes: list[Process]
    figures: list[str]
    """Addresses that tell them."""
    key: str
    """Of an administrator."""


@contextmanager
def one_process(
    folder: Path, given: dict[str, str], collected: Collector, searched: Searched
) -> Iterator[Running]:
    """Over SQLite; traces and reports go to the collector."""
    given |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collected.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={word('otelheader')}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "SENTRY_DSN": collected.dsn.replace("0123456789abcdef", word("dsn")),
        "RATE_LIMIT_ENABLED": "false",
    }
    key = administrator(folder, given)
    with started(folder, given, searched, "serve", "--port", "0") as service:
        yield Running([service], [service.url], key)
    searched.add("traces and reports", *collected.raw)
    assert {"uncaught_fault", "unhandled_error", "settling_failed"} <= {
        event["tags"].get("event") for event in collected.events
    }


@contextmanager
def roles_apart(
    folder: Path, given: dict[str, str], postgres: PostgresServer, searched: Searched
) -> Iterator[Running]:
    """Over PostgreSQL and Valkey, of which every command is heard."""
    password, port = word("redispassword"), free_port()
    with (
        copied(postgres) as url,
        valkey(options=("--requirepass", password)) as redis,
        overhearing(redis.folder / "socket", password) as heard,
    ):
        given |= {
            "DATABASE_URL": url.replace("@", f":{word('databasepassword')}@"),
            "REDIS_URL": f"unix://:{password}@{redis.folder}/socket",
        }
        key = administrator(folder, given)
        with (
            started(folder, given, searched, "api", "--port", "0") as door,
            started(folder, {**given, "METRICS_PORT": str(port)}, searched, "worker") as worker,
        ):
            yield Running([door, worker], [door.url, f"http://127.0.0.1:{port}"], key)
        kept, shown = rows(url)
    searched.add("database", *kept)
    searched.add("statements", *shown)
    searched.add("redis", heard.text)
    for name in (b"cui:bucket:", b"cui:0:progress:", b"cui:0:listeners", b"cui:0:workers"):
        assert name in heard.text, name


@contextmanager
def started(folder: Path, given: dict[str, str], searched: Searched, *arguments: str) -> Iterator[Process]:
    """With mistakes in it; its log is searched."""
    process = Process(["tests.support.faulty", *arguments], folder=folder, environment=given)
    try:
        process.wait_listening()
        yield process
        process.terminate()
    finally:
        process.close()
        searched.add("log", *process.output)


def administrator(folder: Path, given: dict[str, str]) -> str:
    """Made in the shell; the key."""
    made = subprocess.run(
        [sys.executable, "-m", "comfy_api_service", "admin", "create", "--email", "root@example.com",
         "--username", "root", "--password-file", "-"],
        input=word("password") + "-of-root\n", capture_output=True, text=True, check=True, cwd=folder,
        env={**os.environ, **given},
    )  # fmt: skip
    found = re.search(r"cui_sk_\w+", made.stdout)
    assert found is not None, made.stdout
    return found[0]


def until_status(http: httpx2.Client, job_id: str, *wanted: str) -> dict[str, Any]:
    end = time.monotonic() + LIMIT
    while (job := http.get(f"/api/v1/jobs/{job_id}").json())["status"] not in wanted:
        assert time.monotonic() < end, job
        time.sleep(0.1)
    return dict(job)


def body(prompt: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "steps": 2, "width": 64, "height": 64, **more}


def graph() -> dict[str, Any]:
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": word("graphtext"), "clip": ["1", 1]},
              "_meta": {"title": word("graphtitle")}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        word("nodeid"): {"class_type": "KSampler", "inputs": {
            "seed": 1, "steps": 2, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            "model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0]}},
        "5": {"class_type": "VAEDecode", "inputs": {"samples": [word("nodeid"), 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": word("prefix")}},
    }  # fmt: skip


class Caller:
    """Asks in every way; what the owner and strangers are answered is searched."""

    def __init__(self, http: httpx2.Client, key: str, searched: Searched) -> None:
        self.http = http
        self.searched = searched
        self.http.headers["X-API-Key"] = key
        self.http.event_hooks["response"] = [self._keep]

    def _keep(self, response: httpx2.Response) -> None:
        response.read()
        asked, failed = response.request, response.status_code >= 400
        if failed or asked.method != "POST" or not asked.url.path.endswith(GIVING):
            self.searched.add("errors" if failed else "owner", told(response), response.content)
        if failed:
            self.searched.add("messages", response.json()["error"]["message"])

    def job(self, document: dict[str, Any], *wanted: str, **headers: str) -> str:
        answer = self.http.post("/api/v1/jobs", json=document, headers=headers)
        assert answer.status_code == 202, answer.text
        job_id = str(answer.json()["job_id"])
        job = until_status(self.http, job_id, *wanted)
        assert job["status"] == wanted[0], job
        return job_id

    def refused(self, method: str, path: str, status: int, **content: Any) -> str:
        answer = self.http.request(method, path, **content)
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        return answer.text

    def stranger(self, method: str, path: str, **content: Any) -> None:
        """Somebody who has no business with it; what he is told is searched."""
        headers = {"X-API-Key": "", **content.pop("headers", {})}
        answer = httpx2.request(
            method, f"{self.http.base_url}{path}", headers=headers, trust_env=False, **content
        )
        self.searched.add("strangers", told(answer), answer.text)


def told(answer: httpx2.Response) -> str:
    """Its headers."""
    return "\n".join(f"{name}: {value}" for name, value in answer.headers.items())


def listen(caller: Caller, collected: Collector) -> None:
    """Webhooks, one of which is refused with a word that the receiver has."""
    hooks, receiver = "/api/v1/webhooks", f"{collected.url}/webhooks"
    collected.rebuff = word("hookanswer")
    events = ["job.running", "job.succeeded", "job.failed"]
    for number, path in enumerate((f"{word('hookpath')}?{word('hookquery')}=1", "refusing")):
        made = caller.http.post(hooks, json={"url": f"{receiver}/{path}", "events": events})
        assert made.status_code == 201, made.text
        rotated = caller.http.post(f"{hooks}/{made.json()['webhook_id']}/rotate")
        account = caller.http.post(f"{hooks}/secret")
        for name, answer in (("first", made), ("rotated", rotated), ("account's", account)):
            shown = answer.json()["secret"].removeprefix("whsec_")
            caller.searched.secrets[f"{name} signing secret {number}"] = base64.b64decode(shown)
    secret = f"https://u:{word('hookpassword')}@127.0.0.1/{word('hookrefused')}"
    caller.refused("POST", hooks, 422, json={"url": secret, "events": events})


def succeed(caller: Caller, hook: str) -> str:
    labels = {word("labelkey"): word("labelvalue")}
    plain = body(
        word("prompt"),
        negative_prompt=word("negative"),
        labels=labels,
        webhook_url=f"{hook}/{word('hookpath')}",
    )
    job_id = caller.job(plain, "succeeded", **{"Idempotency-Key": word("idempotency"), "Cookie": word("cookie"),
                        "User-Agent": word("agent"), "Referer": f"https://host/{word('referer')}"})  # fmt: skip
    caller.job(body(word("embedded"), output={"metadata": "embed"}), "succeeded")
    caller.job({"workflow": graph()}, "succeeded")
    http = caller.http
    name = f"{word('filename')}.png"
    upload = http.post("/api/v1/upload", files={"file": (name, png(), "image/png")}).json()["upload_id"]
    caller.job(body(word("prompt"), image=upload, strength=0.5), "succeeded")
    made = http.post("/api/v1/workflows", json={
        "name": word("template"), "description": word("template"), "workflow": graph(),
        "parameters": [{"name": "text", "type": "string", "targets": [{"node": "2", "input": "text"}]}],
    })  # fmt: skip
    assert made.status_code == 201, made.text
    place = f"/api/v1/workflows/{made.json()['workflow_id']}/execute"
    answer = http.post(place, json={"inputs": {"text": word("input")}})
    assert answer.status_code == 202, answer.text
    until_status(http, answer.json()["job_id"], "succeeded")
    return job_id


def be_refused(caller: Caller, job_id: str) -> None:
    """What the caller asks wrongly; he may be told his own words, nobody else is."""
    jobs = "/api/v1/jobs"
    caller.refused("POST", jobs, 400, content=b'{"prompt": "' + word("badjson").encode(), headers=JSON)
    caller.refused("POST", jobs, 422, json=body(word("invalid") * 900))
    caller.refused("POST", jobs, 422, json={**body("x"), word("unknownfield"): word("unknownvalue")})
    caller.refused("POST", jobs, 422, json=body("x", model=f"{word('model')}.safetensors"))
    caller.refused("POST", jobs, 422, json=body("x", loras=[{"name": word("lora"), "weight": 1}]))
    caller.refused("POST", jobs, 422, json={"workflow": {"1": {"class_type": word("class"), "inputs": {}}}})
    caller.refused("POST", jobs, 413, content=word("large").encode() * 9000, headers=JSON)
    caller.refused(
        "POST", jobs, 422, json=body("x", image=f"https://u:{word('urlpassword')}@127.0.0.1/{word('url')}")
    )
    caller.refused("POST", jobs, 422, json=body("x", image=f"https://{word('host')}.invalid/a.png"))
    caller.refused("POST", jobs, 503, json=body(f"refuse {word('hooked')}"))
    caller.refused(
        "POST", "/api/v1/upload", 415, files={"file": (f"{word('filename')}.exe", word("content").encode())}
    )
    caller.refused("GET", f"/{word('path')}?{word('query')}=1", 404)
    caller.refused("GET", f"{jobs}/job_{word('jobid')}", 404)
    caller.refused("GET", f"{jobs}?label={word('filter')}&cursor={word('cursor')}", 422)
    caller.refused("POST", f"{jobs}/{job_id}/retry", 500)
    for headers in ({"X-API-Key": word("wrongkey")}, {"Authorization": f"Bearer {word('wrongtoken')}"}):
        caller.stranger("GET", f"{jobs}/{job_id}", headers=headers)
    caller.stranger("GET", f"/ws/jobs?ticket={word('ticket')}")
    caller.stranger("GET", f"/artifacts/jobs/{word('artifact')}/1/a.png?signature={word('signature')}")


def log_in(caller: Caller, searched: Searched) -> None:
    login, who = "/api/v1/auth/login", {"username": "root", "password": word("password") + "-of-root"}
    session = caller.http.post(login, json=who)
    assert session.status_code == 200, session.text
    searched.secrets["access token"] = session.json()["access_token"]
    searched.secrets["refresh token"] = session.json()["refresh_token"]
    ticket = caller.http.post("/api/v1/auth/ticket")
    assert ticket.status_code in (200, 201), ticket.text
    searched.secrets["ticket"] = ticket.json()["ticket"]
    caller.stranger("POST", login, json={**who, "password": word("wrongpassword")})
    caller.stranger("POST", login, json={"username": word("wronguser"), "password": word("wrongpassword")})
    new = {"email": "ada@example.com", "username": "ada", "password": word("password") + "-of-ada"}
    other = caller.http.post("/api/v1/auth/register", json=new)
    assert other.status_code == 201, other.text
    made = caller.http.post("/api/v1/auth/keys", json={"name": word("keyname")})
    assert made.status_code == 201, made.text
    searched.secrets["second key"] = made.json()["api_key"]


def fail(caller: Caller, sim: Process, store: S3Server) -> None:
    """Jobs that end badly: a node, a mistake of the worker's, the backend, and at last the store."""
    faults = f"{sim.url}/_simulator/faults"
    message = {
        "node_class": "KSampler",
        "message": f"{word('nodeerror')} /home/{word('nodepath')}/x.py",
        "times": 1,
    }
    httpx2.post(f"{faults}/fail_node", json=message, trust_env=False).raise_for_status()
    caller.job(body(word("prompt")), "failed")
    caller.job(body(f"{word('explode')} explode", max_attempts=1), "failed")
    httpx2.post(f"{faults}/answer_errors", json={"n": 1, "status": 500}, trust_env=False).raise_for_status()
    caller.job(body(word("prompt")), "succeeded", "failed")
    store.kill()
    caller.http.post("/api/v1/jobs", json=body(word("prompt")))


def kinds(collected: Collector) -> set[str]:
    """Of events that were delivered."""
    return {json.loads(body)["type"] for body in tuple(collected.delivered)}


def look(caller: Caller, job_id: str) -> None:
    """At all that the owner is shown; a delivery that was refused among it."""
    http, hooks = caller.http, "/api/v1/webhooks"
    end = time.monotonic() + LIMIT
    while 500 not in {one["last_status"] for one in http.get(f"{hooks}/deliveries").json()["deliveries"]}:
        assert time.monotonic() < end
        time.sleep(0.1)
    for path in (hooks, "/api/v1/jobs", f"/api/v1/jobs/{job_id}", f"/api/v1/jobs/{job_id}/events",
                 "/api/v1/workflows", "/api/v1/usage", "/api/v1/auth/me", "/api/v1/auth/keys"):  # fmt: skip
        answer = http.get(path)
        assert answer.status_code == 200, (path, answer.text)


def search(searched: Searched, running: Running, http: httpx2.Client) -> None:
    for service in running.processes:
        top = psutil.Process(service.popen.pid)
        for process in (top, *top.children(recursive=True)):
            searched.add("titles", " ".join(process.cmdline()), process.name())
    for url in running.figures:
        token = {"Authorization": f"Bearer {word('metricstoken')}"}
        metrics = httpx2.get(f"{url}/metrics", headers=token, trust_env=False)
        assert "comfyui_jobs_total" in metrics.text
        searched.add("metrics", metrics.text)
    for path in ("/admin/audit", "/admin/backends", "/admin/stats", "/admin/api-keys", "/admin/jobs"):
        answer = http.get(path)
        assert answer.status_code == 200, (path, answer.text)
        searched.add(path, answer.text)
    for path in ("/health", "/openapi.json", "/"):
        searched.add("strangers", http.get(path).text)


def search_files(searched: Searched, folder: Path, store: S3Server) -> None:
    """After the end; names and contents. What is in the database may be in no other file."""
    for place, top in (
        ("temporary files", folder / "tmp"),
        ("files", folder / "data"),
        ("store", store.root),
    ):
        for path in top.rglob("*"):
            in_database = path.name.startswith("comfy-api.sqlite3")
            searched.add("database" if in_database else place, str(path.relative_to(top)))
            if path.is_file():
                searched.add("database" if in_database else place, path.read_bytes())


@pytest.mark.parametrize("form", ["one process", "roles apart"])
def test_words_are_found_where_they_belong_and_nowhere_else(
    tmp_path: Path, collected: Collector, store: S3Server, request: pytest.FixtureRequest, form: str
) -> None:
    searched = Searched()
    with simulator(tmp_path, *QUICK) as sim:
        given = environment(tmp_path, sim, store)
        searched.secrets = {"store": given["S3_SECRET_KEY"]}
        if form == "one process":
            service = one_process(tmp_path, given, collected, searched)
        else:
            service = roles_apart(tmp_path, given, request.getfixturevalue("postgres"), searched)
        with service as running, client(running.processes[0]) as http:
            searched.secrets["api key"] = running.key.removeprefix("cui_sk_")
            until_online(http)
            caller = Caller(http, running.key, searched)
            listen(caller, collected)
            job_id = succeed(caller, f"{collected.url}/webhooks")
            be_refused(caller, job_id)
            log_in(caller, searched)
            fail(caller, sim, store)
            collected.until(lambda got: {"job.succeeded", "job.failed"} <= kinds(got))
            if form == "one process":
                collected.until(lambda got: len(got.events) >= 3)
            look(caller, job_id)
            search(searched, running, http)
    searched.add("webhooks", *collected.delivered, *map(str, collected.webhooks))
    search_files(searched, tmp_path, store)
    log = searched.texts["log"]
    assert len({line for line in log if b"RuntimeError" in line or b"LookupError" in line}) >= 3
    found = searched.found()
    for kind in ("prompt", "negative", "labelkey", "idempotency", "nodeerror", "backend"):
        assert "database" in found[kind], kind  # the search finds what is there
    assert "store" in found["embedded"]
    assert "webhooks" in found["labelvalue"]
    assert "owner" in found["prompt"]
    wrong = {kind: sorted(places - MAY_BE.get(kind, frozenset())) for kind, places in found.items()}
    assert {kind: places for kind, places in wrong.items() if places} == {}
