"""What an operator's hook is asked, and what it may answer; an answer is hostile until it is read here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from comfy_api_service.domain.account import Account
from comfy_api_service.domain.texts import Texts

LONGEST_TEXT: Final = 100_000
"""Characters of one rewritten text: the most that a text of a graph may have."""
LONGEST_MESSAGE: Final = 500
REFUSED: Final = "The rules of this service do not allow this request."
_STORABLE: Final = re.compile(r"[^\x00\ud800-\udfff]*")


@dataclass(frozen=True, slots=True)
class Allow:
    pass


@dataclass(frozen=True, slots=True)
class Refuse:
    message: str = REFUSED
    """For the caller."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    texts: Texts = field(default_factory=dict)
    """Those alone that change."""


Decision = Allow | Refuse | Rewrite


class HookFailed(Exception):
    """There is no answer that can be used; the text says why, and nothing of what was asked or answered."""


class HookAway(HookFailed):
    """It did not answer at all."""


class Hook(Protocol):
    async def ask(self, document: Mapping[str, Any]) -> object:
        """The answer, not read yet. Raises `HookFailed`."""


def question(account: Account, kind: str, texts: Texts, built: Sequence[str] = ()) -> dict[str, Any]:
    """The document; `kind` is `generation` or `graph`, `built` what nodes will make of the texts."""
    return {
        "account_id": account.id,
        "tier": account.tier,
        "kind": kind,
        "texts": dict(texts),
        "built": list(built),
    }


def decision_of(answer: object, asked: Texts) -> Decision:
    """Raises `HookFailed` for anything but one of the three answers, exactly."""
    if not isinstance(answer, Mapping):
        raise HookFailed("its answer is no object")
    action = answer.get("action")
    known = {"allow": {"action"}, "refuse": {"action", "message"}, "rewrite": {"action", "texts"}}
    if not isinstance(action, str) or action not in known:
        raise HookFailed("its answer has no action that is known")
    if not answer.keys() <= known[action]:
        raise HookFailed("its answer has fields that are not known")
    if action == "allow":
        return Allow()
    if action == "refuse":
        return Refuse(_message(answer.get("message", REFUSED)))
    return _rewrite(answer.get("texts"), asked)


def _message(value: object) -> str:
    if (
        not isinstance(value, str)
        or len(value) > LONGEST_MESSAGE
        or not value.isprintable()
        or not value.strip()
    ):
        raise HookFailed("its message is no line of text, or too long")
    return value


def _rewrite(texts: object, asked: Texts) -> Decision:
    if not isinstance(texts, Mapping) or not texts.keys() <= asked.keys():
        raise HookFailed("it rewrites what it was not given")
    for text in texts.values():
        if not isinstance(text, str) or len(text) > LONGEST_TEXT or not _STORABLE.fullmatch(text):
            raise HookFailed("a text of its answer is none, too long, or cannot be stored")
    changed = {place: str(text) for place, text in texts.items() if text != asked[place]}
    return Rewrite(changed) if changed else Allow()
