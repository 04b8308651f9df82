"""Faults of fields, in words."""

import pytest
from pydantic import BaseModel, Field, ValidationError

from comfy_api_service.api.faults import validation_failed


class Named(BaseModel):
    name: str = Field(min_length=1)
    word: str = Field(min_length=2)
    parts: list[int] = Field(min_length=1)


def test_what_is_too_short() -> None:
    with pytest.raises(ValidationError) as refused:
        Named(name="", word="", parts=[])
    told = validation_failed(refused.value.errors()).details["errors"]
    assert [fault["message"] for fault in told] == [
        "must not be empty",
        "must have at least 2 characters",
        "must have at least one entry",
    ]
