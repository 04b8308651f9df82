"""Addresses of receivers, refused at once where no look at a name is needed."""

import pytest

from comfy_api_service.domain.errors import ValidationFailed
from comfy_api_service.services.webhooks import check_url


@pytest.mark.parametrize(
    "url", ["http://example.com/hook", "https://example.com:9000/", "https://127.0.0.1/", "https://hooks/"]
)
def test_what_an_operator_may_allow_says_so(url: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        check_url(url, allow_private=False)
    (fault,) = refused.value.details["errors"]
    assert fault["field"] == "url"
    assert fault["message"].startswith("must be an https URL")
    assert "WEBHOOK_ALLOW_PRIVATE" in fault["message"]
    check_url(url, allow_private=True)


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("url", ["ftp://example.com/", "https://ada@example.com/", "nowhere"])
def test_what_nobody_may_allow_does_not(url: str, *, allowed: bool) -> None:
    with pytest.raises(ValidationFailed) as refused:
        check_url(url, allow_private=allowed)
    assert "WEBHOOK_ALLOW_PRIVATE" not in str(refused.value.details)
