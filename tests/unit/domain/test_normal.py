"""Normal forms: those of Unicode, but for marks in a number that no language has."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_api_service.domain.normal import normal


@given(st.text(max_size=30))
def test_texts_are_as_unicode_has_them(text: str) -> None:
    assert normal("NFKC", text) == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize("marks", ["\u0301\u0323", "\u05b8\u05b0", "\U0001d165\u0323"])
def test_at_most_thirty_marks_are_kept_behind_a_letter(marks: str) -> None:
    assert len(normal("NFKD", f"a{marks * 15}b")) == 32
    assert len(normal("NFKD", f"a{marks * 1000}b{marks * 1000}")) == 62
