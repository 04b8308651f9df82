"""An address that an operator adds is held to the rules of COMFYUI_URL."""

import pytest

from comfy_api_service.api.schemas.admin import comfyui_url
from comfy_api_service.settings import Settings

URLS = [
    "http://gpu3:8188", "http://gpu3:8188/", "https://user:pass@gpu.example.com/comfy/", "http://[::1]:8188",
    "http://127.0.0.1:8188", "gpu3:8188", "ftp://gpu3", "http://", "http://gpu3/?a=b", "http://gpu3/#x", "//gpu3",
    "http://gpu3:99999", "no address", "http://a b", "HTTP://GPU3", "http://gpu3//",
]  # fmt: skip


def by_setting(url: str) -> str | None:
    try:
        return Settings(_env_file=None, comfyui_url=(url,)).comfyui_url[0]
    except ValueError:
        return None


def by_api(url: str) -> str | None:
    try:
        return comfyui_url(url)
    except ValueError:
        return None


@pytest.mark.parametrize("url", URLS)
def test_both_take_the_same(url: str) -> None:
    assert by_api(url) == by_setting(url)


def test_some_are_taken_and_some_are_not() -> None:
    assert {by_api(url) is None for url in URLS} == {True, False}
