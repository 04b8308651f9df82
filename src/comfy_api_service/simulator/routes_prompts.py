"""Submitting, queue, history, stopping, and the `/api/jobs` of newer versions."""

import time
import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import web

from . import jobs
from .answers import as_json, body_of, trouble
from .prompts import Item
from .validation import Verdict, validate

if TYPE_CHECKING:
    from .server import Simulator

SENSITIVE = ("auth_token_comfy_org", "api_key_comfy_org")


class PromptRoutes:
    """Handlers; the engine is looked up at each request, for it is another one after a restart."""

    def __init__(self, simulator: "Simulator") -> None:
        self._simulator = simulator
        self._settings = simulator.settings

    def routes(self) -> list[tuple[str, str, Any]]:
        found: list[tuple[str, str, Any]] = [
            ("POST", "/prompt", self.post_prompt),
            ("GET", "/prompt", self.get_prompt),
            ("GET", "/queue", self.get_queue),
            ("POST", "/queue", self.post_queue),
            ("GET", "/history", self.get_history),
            ("GET", "/history/{prompt_id}", self.get_history_entry),
            ("POST", "/history", self.post_history),
            ("POST", "/interrupt", self.post_interrupt),
            ("POST", "/free", self.post_free),
        ]
        return found

    def api_routes(self) -> list[tuple[str, str, Any]]:
        """Those that exist under `/api` only."""
        found: list[tuple[str, str, Any]] = []
        if self._settings.protocol != "0.3.64":
            found += [("GET", "/api/jobs", self.get_jobs), ("GET", "/api/jobs/{job_id}", self.get_job)]
        if self._settings.newer:
            found += [
                ("POST", "/api/jobs/cancel", self.cancel_jobs),
                ("POST", "/api/jobs/{job_id}/cancel", self.cancel_job),
            ]
        return found

    async def post_prompt(self, request: web.Request) -> web.Response:
        try:
            body = await body_of(request)
            # Anything with no field in it is a body without a prompt.
            return await self._submit({} if isinstance(body, (list, str)) else body)
        except (ValueError, TypeError, KeyError, AttributeError):
            return trouble()

    async def _submit(self, body: dict[str, Any]) -> web.Response:
        engine, settings = self._simulator.engine, self._settings
        number = self._number(body)
        if "prompt" not in body:
            return _refused("no_prompt", "No prompt provided", "No prompt provided")
        graph = self._simulator.faults.nodes.rewritten(body["prompt"])
        prompt_id = str(body.get("prompt_id", uuid.uuid4()))
        verdict = await self._validate(graph, body.get("partial_execution_targets"))
        if settings.newer and (refusal := self._check_id(prompt_id)) is not None:
            return refusal
        if verdict.error is not None:
            return as_json({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
        extra_data = dict(body.get("extra_data", {}))
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        if settings.protocol != "0.3.64":
            for key in SENSITIVE:
                extra_data.pop(key, None)
            extra_data["create_time"] = int(time.time() * 1000)
        self._simulator.record.accepted[prompt_id] += 1
        engine.queue.put(Item(number, prompt_id, graph, extra_data, verdict.outputs))
        return as_json({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})

    def _number(self, body: dict[str, Any]) -> float:
        """The place in the queue; every submission takes one, valid or not."""
        if "number" in body:
            return float(body["number"])
        engine = self._simulator.engine
        engine.number += 1
        return (1 - engine.number) if body.get("front") else engine.number - 1

    async def _validate(self, graph: Any, only: list[str] | None) -> Verdict:
        """Files that loaders name are looked for beforehand, in a thread; the rest takes no time."""
        named = {
            v
            for node in graph.values()
            if str(node.get("class_type", "")).startswith("Load")
            for v in node.get("inputs", {}).values()
            if isinstance(v, (str, int, float))
        }
        found = await self._simulator.look_for(named) if named else {}
        return validate(graph, self._simulator.engine.inventory, lambda n: found.get(n, False), only)

    def _check_id(self, prompt_id: str) -> web.Response | None:
        """Newer servers take lower-case UUIDs alone, and each once."""
        engine = self._simulator.engine
        try:
            valid = str(uuid.UUID(prompt_id)) == prompt_id
        except ValueError:
            valid = False
        if not valid:
            return _refused("invalid_prompt_id", "prompt_id must be a valid UUID", prompt_id)
        if engine.queue.knows(prompt_id) or engine.history.get(prompt_id):
            return _refused("duplicate_prompt_id", "prompt_id already exists", prompt_id, status=409)
        return None

    async def get_prompt(self, _request: web.Request) -> web.Response:
        return as_json(self._simulator.engine.queue_info())

    async def get_queue(self, _request: web.Request) -> web.Response:
        queue = self._simulator.engine.queue
        running = [] if queue.running is None else [queue.running.as_list()]
        pending = [item.as_list() for item in queue.pending]
        return as_json({"queue_running": running, "queue_pending": pending})

    async def post_queue(self, request: web.Request) -> web.Response:
        queue = self._simulator.engine.queue
        try:
            body = await body_of(request)
            if body.get("clear"):
                queue.clear()
            for prompt_id in body.get("delete", ()):
                queue.delete(prompt_id)
        except (ValueError, TypeError, AttributeError):
            return trouble()
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        try:
            most = request.query.get("max_items")
            offset = int(request.query.get("offset", -1))
            page = self._simulator.engine.history.page(None if most is None else int(most), offset)
        except ValueError:
            return trouble()
        return as_json(page)

    async def get_history_entry(self, request: web.Request) -> web.Response:
        found = self._simulator.engine.history.get(request.match_info["prompt_id"])
        if self._simulator.faults.garbled:
            found = {prompt_id: {"outputs": entry["outputs"]} for prompt_id, entry in found.items()}
        return as_json(found)

    async def post_history(self, request: web.Request) -> web.Response:
        history = self._simulator.engine.history
        try:
            body = await body_of(request)
            if body.get("clear"):
                history.clear()
            for prompt_id in body.get("delete", ()):
                history.delete(prompt_id)
        except (ValueError, TypeError, AttributeError):
            return trouble()
        return web.Response()

    async def post_interrupt(self, request: web.Request) -> web.Response:
        try:
            body = await body_of(request)
        except ValueError:
            body = {}
        self._simulator.engine.interrupt(body.get("prompt_id") or None)
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        try:
            body = await body_of(request)
            models, memory = bool(body.get("unload_models")), bool(body.get("free_memory"))
        except (ValueError, AttributeError):
            return trouble()
        self._simulator.engine.free(unload_models=models, free_memory=memory)
        return web.Response()

    async def get_job(self, request: web.Request) -> web.Response:
        engine, job_id = self._simulator.engine, request.match_info["job_id"]
        if entry := engine.history.get(job_id):
            newer = self._settings.newer
            return as_json(jobs.finished(job_id, entry[job_id], whole=True, newer=newer))
        if engine.queue.running is not None and engine.queue.running.prompt_id == job_id:
            return as_json(jobs.queued(engine.queue.running, "in_progress"))
        for item in engine.queue.pending:
            if item.prompt_id == job_id:
                return as_json(jobs.queued(item, "pending"))
        return as_json({"error": "Job not found"}, status=404)

    async def get_jobs(self, request: web.Request) -> web.Response:
        query, engine = request.query, self._simulator.engine
        known = jobs.NEWER_STATUSES if self._settings.newer else jobs.STATUSES
        wanted = [s.strip().lower() for s in query.get("status", ",".join(known)).split(",") if s.strip()]
        if bad := [s for s in wanted if s not in known]:
            message = f"Invalid status value(s): {', '.join(bad)}. Valid values: {', '.join(known)}"
            return as_json({"error": message}, status=400)
        sort_by, order = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
        if sort_by not in {"created_at", "execution_duration"}:
            return as_json({"error": "sort_by must be 'created_at' or 'execution_duration'"}, status=400)
        if order not in {"asc", "desc"}:
            return as_json({"error": "sort_order must be 'asc' or 'desc'"}, status=400)
        try:
            limit = int(query["limit"]) if "limit" in query else None
        except ValueError:
            return as_json({"error": "limit must be an integer"}, status=400)
        if limit is not None and limit <= 0:
            return as_json({"error": "limit must be a positive integer"}, status=400)
        try:
            offset = max(0, int(query.get("offset", 0)))
        except ValueError:
            return as_json({"error": "offset must be an integer"}, status=400)
        found = [] if engine.queue.running is None else [jobs.queued(engine.queue.running, "in_progress")]
        found += [jobs.queued(item, "pending") for item in engine.queue.pending]
        newer = self._settings.newer
        found += [jobs.finished(k, v, whole=False, newer=newer) for k, v in engine.history.page().items()]
        found = jobs.ordered(
            [j for j in found if j["status"] in wanted], sort_by, newest_first=order == "desc"
        )
        page = found[offset:] if limit is None else found[offset : offset + limit]
        paging = {
            "offset": offset,
            "limit": limit,
            "total": len(found),
            "has_more": offset + len(page) < len(found),
        }
        return as_json({"jobs": page, "pagination": paging})

    async def cancel_job(self, request: web.Request) -> web.Response:
        """In the queue or running, in one step; anything else is left as it is and told so."""
        return as_json({"cancelled": self._cancel(request.match_info["job_id"])})

    async def cancel_jobs(self, request: web.Request) -> web.Response:
        engine = self._simulator.engine
        try:
            wanted = list((await body_of(request))["job_ids"])
        except (ValueError, TypeError, KeyError):
            return as_json({"error": "job_ids must be a list"}, status=400)
        if any(not engine.queue.knows(j) and not engine.history.get(j) for j in wanted):
            return as_json({"error": "Job not found"}, status=404)
        return as_json({"cancelled": [j for j in wanted if self._cancel(j)]})

    def _cancel(self, job_id: str) -> bool:
        engine = self._simulator.engine
        return engine.queue.delete(job_id) or engine.interrupt(job_id)


def _refused(kind: str, message: str, details: str, status: int = 400) -> web.Response:
    error = {"type": kind, "message": message, "details": details, "extra_info": {}}
    return as_json({"error": error, "node_errors": {}}, status=status)
