"""Every operation of the OpenAPI document as a request to send: for Postman and its like, and as a `.http` file.

Ids are variables. Those of what a request has just made are kept by the collection itself; in the `.http` file, whose
editors have no common way to do that, they stand at the top.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

ADDRESS: Final = "http://127.0.0.1:8000"
KEY: Final = "cui_sk_put_yours_here"
PICTURE: Final = "picture.png"
SCHEMA: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
OF_BACKENDS: Final = "backend_id"
OF_FILES: Final = "file_key"
"""What the paths call `name` and `key`: a backend's name, a stored file's key."""
KNOWN: Final = {
    OF_BACKENDS: "none",
    "version": "1",
    OF_FILES: "jobs/none/1/none.png",
    "key_id": "000000000000",
    "refresh_token": "cui_rt_put_yours_here",
    "from": "2026-01-01",
    "to": "2026-01-31",
}
KEEPING: Final = """\
const text = pm.response.headers.get("Content-Type") || "";
if (pm.request.method === "POST" && pm.response.code < 300 && text.startsWith("application/json")) {
  const told = pm.response.json();
  if (told.api_key) told.key_id = told.id;
  if (told.url) told.backend_id = told.name;
  for (const name of Object.keys(told)) {
    if (name.endsWith("_id") && pm.collectionVariables.has(name)) pm.collectionVariables.set(name, told[name]);
  }
}"""
"""The ids that an answer to a POST tells go into the variables of the same names, and nothing else does: an answer
never says where the key is sent."""


@dataclass(frozen=True, slots=True)
class Request:
    """One operation, with its example."""

    name: str
    summary: str
    tag: str
    method: str
    path: str
    """With `{{variables}}`."""
    needs_key: bool
    query: tuple[tuple[str, str, bool], ...]
    """Name, value, and whether it has to be there."""
    body: Any = None
    has_file: bool = False

    @property
    def address(self) -> str:
        """With the part of the query that has to be there."""
        query = "&".join(f"{name}={value}" for name, value, required in self.query if required)
        return f"{{{{url}}}}{self.path}{'?' if query else ''}{query}"


def requests(document: dict[str, Any]) -> list[Request]:
    """In the order of the document, by tag; what deletes comes last in its group, and what was made last goes first,
    so that a run from top to bottom finds all it needs.
    """
    tags = [tag["name"] for tag in document["tags"]]
    made = [
        _request(method.upper(), path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    stays = [one for one in made if one.method != "DELETE"]
    goes = [one for one in reversed(made) if one.method == "DELETE"]
    return sorted(stays + goes, key=lambda one: tags.index(one.tag))


def variables(document: dict[str, Any]) -> dict[str, str]:
    """What stands for `{{…}}` at first, apart from address and key."""
    text = json.dumps([(one.address, one.body) for one in requests(document)])
    names = dict.fromkeys(re.findall(r"\{\{(\w+)\}\}", text))
    return {name: KNOWN.get(name) or _absent(name) for name in names if name != "url"}


def _absent(name: str) -> str:
    prefixes = {
        "job_id": "job",
        "batch_id": "batch",
        "upload_id": "upl",
        "workflow_id": "wfl",
        "user_id": "acc",
    }
    return f"{prefixes.get(name, name.removesuffix('_id'))}_{'0' * 26}"


def _request(method: str, path: str, operation: dict[str, Any]) -> Request:
    template = path.replace("{name}", f"{{{OF_BACKENDS}}}").replace("{key}", f"{{{OF_FILES}}}")
    content = operation.get("requestBody", {}).get("content", {})
    body = content.get("application/json", {}).get("example")
    return Request(
        name=operation["operationId"],
        summary=operation["summary"],
        tag=operation["tags"][0],
        method=method,
        path=re.sub(r"\{(\w+)\}", r"{{\1}}", template),
        needs_key="security" in operation,
        query=tuple(_query(operation)),
        body=_with_variables(body),
        has_file="multipart/form-data" in content,
    )


def _query(operation: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            name, required = parameter["name"], parameter.get("required", False)
            default = parameter["schema"].get("default", "")
            yield name, f"{{{{{name}}}}}" if required else json.dumps(default).strip('"'), required


def _with_variables(body: Any) -> Any:
    """Ids and tokens of an example are somebody else's: variables take their place."""
    if not isinstance(body, dict):
        return body
    return {
        name: f"{{{{{name}}}}}"
        if name.endswith(("_id", "refresh_token")) and isinstance(value, str)
        else value
        for name, value in body.items()
    }


def http_file(document: dict[str, Any]) -> str:
    """For editors that send requests: the REST Client of VS Code, JetBrains' HTTP Client, httpyac."""
    lines = [
        "# Every operation, in the order of the documentation. Made by `make docs`: changes are lost.",
        "# Put your key here, and in place of the ids those that earlier answers told you.",
        f"@url = {ADDRESS}",
        f"@key = {KEY}",
        *(f"@{name} = {value}" for name, value in variables(document).items()),
    ]
    for one in requests(document):
        lines += ["", f"### {one.summary}", f"# @name {one.name}", f"{one.method} {one.address}"]
        if one.needs_key:
            lines.append("X-API-Key: {{key}}")
        if one.has_file:
            lines += [
                "Content-Type: multipart/form-data; boundary=picture",
                "",
                "--picture",
                f'Content-Disposition: form-data; name="file"; filename="{PICTURE}"',
                "",
                f"< ./{PICTURE}",
                "--picture--",
            ]
        elif one.body is not None:
            lines += [
                "Content-Type: application/json",
                "",
                json.dumps(one.body, indent=2, ensure_ascii=False),
            ]
    return "\n".join([*lines, ""])


def postman(document: dict[str, Any]) -> str:
    """A collection in Postman's format, which Bruno, Insomnia, Hoppscotch and others import."""
    groups: dict[str, list[Any]] = {tag["name"]: [] for tag in document["tags"]}
    for one in requests(document):
        groups[one.tag].append(_item(one))
    told = {tag["name"]: tag["description"] for tag in document["tags"]}
    collection = {
        "info": {
            "name": document["info"]["title"],
            "description": document["info"]["description"],
            "schema": SCHEMA,
        },
        "auth": {
            "type": "apikey",
            "apikey": [
                {"key": "key", "value": "X-API-Key", "type": "string"},
                {"key": "value", "value": "{{api_key}}", "type": "string"},
                {"key": "in", "value": "header", "type": "string"},
            ],
        },
        "event": [
            {"listen": "test", "script": {"type": "text/javascript", "exec": KEEPING.splitlines()}},
        ],
        "variable": [
            {"key": name, "value": value}
            for name, value in {"url": ADDRESS, "api_key": KEY, **variables(document)}.items()
        ],
        "item": [
            {"name": tag, "description": told[tag], "item": items} for tag, items in groups.items() if items
        ],
    }
    return json.dumps(collection, indent=2, ensure_ascii=False) + "\n"


def _item(one: Request) -> dict[str, Any]:
    request: dict[str, Any] = {"method": one.method, "header": [], "url": _url(one)}
    if not one.needs_key:
        request["auth"] = {"type": "noauth"}
    if one.has_file:
        request["body"] = {"mode": "formdata", "formdata": [{"key": "file", "type": "file", "src": PICTURE}]}
    elif one.body is not None:
        request["header"] = [{"key": "Content-Type", "value": "application/json"}]
        request["body"] = {"mode": "raw", "raw": json.dumps(one.body, indent=2, ensure_ascii=False)}
    return {"name": one.summary, "id": one.name, "request": request}


def _url(one: Request) -> dict[str, Any]:
    url: dict[str, Any] = {
        "raw": one.address,
        "host": ["{{url}}"],
        "path": one.path.strip("/").split("/") if one.path != "/" else [""],
    }
    if one.query:
        url["query"] = [
            {"key": name, "value": value, **({} if required else {"disabled": True})}
            for name, value, required in one.query
        ]
    return url
