"""The documentation pages: whole without internet, and asking nobody but this service."""

import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from tests.support.api import Client

HOST = "service.test"
PAGES = ("/docs", "/redoc")


class References(HTMLParser):
    """What a page loads, and the text of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.script = ""
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in {"src", "href", "spec-url"} and value]
        self._in_script = tag == "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.script += data


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_loads_everything_from_this_service(client: Client, page: str) -> None:
    answer = await client.get(page)
    read = References()
    read.feed(answer.text)
    addresses = [*read.found, *re.findall(r"url: '([^']+)'", read.script)]
    assert len(addresses) >= 3
    for address in addresses:
        whole = urljoin(f"http://{HOST}{page}", address)
        assert urlsplit(whole).netloc == HOST, address
        loaded = await client.get(whole)
        assert (loaded.status_code, bool(loaded.content)) == (200, True), address


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_may_ask_no_other_host(client: Client, page: str) -> None:
    """Whatever its scripts would fetch by themselves."""
    policy = (await client.get(page)).headers["content-security-policy"]
    sources = {word for rule in policy.split(";") for word in rule.split()[1:]}
    assert sources <= {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}
    assert "default-src 'none'" in policy


async def test_scripts_are_kept_by_browsers_and_others_are_not_there(client: Client) -> None:
    script = await client.get("/docs/assets/redoc.standalone.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["cache-control"] == "max-age=86400"
    for name in ("core.py", "nothing.js", "..%2f__init__.py"):
        answer = await client.get(f"/docs/assets/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")
