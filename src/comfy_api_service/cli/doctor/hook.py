"""The operator's prompt hook: asked once about a harmless text, as the service would ask."""

import asyncio
import time
from typing import TYPE_CHECKING, Final

from comfy_api_service.bootstrap.parts import open_hook
from comfy_api_service.cli.doctor.finding import Finding, fault, ok, warning
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.hook import HookFailed, Refuse, decision_of, question
from comfy_api_service.domain.texts import NEGATIVE, PROMPT
from comfy_api_service.outbound.hook import HookUnusable

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings

SUBJECT: Final = "prompt hook"
TEXTS: Final = {PROMPT: "a lighthouse at dawn", NEGATIVE: ""}


async def examine(settings: "Settings") -> Finding:
    limit = settings.prompt_hook_timeout
    began = time.monotonic()
    try:
        async with open_hook(settings) as hook:
            if hook is None:
                return ok(SUBJECT, "there is none")
            async with asyncio.timeout(limit):
                decision = decision_of(await hook.ask(question(LOCAL, "generation", TEXTS)), TEXTS)
    except HookUnusable as error:
        return fault(
            SUBJECT, str(error), "Install the package beside this program, or name its folder in PYTHONPATH."
        )
    except TimeoutError:
        return fault(
            SUBJECT, f"no answer within {limit:g} s", "Make it faster, or raise PROMPT_HOOK_TIMEOUT."
        )
    except HookFailed as error:
        return fault(SUBJECT, str(error), "Correct PROMPT_HOOK, or what answers there; see docs/RULES.md.")
    if isinstance(decision, Refuse):
        return warning(SUBJECT, f"it refuses {TEXTS[PROMPT]!r}", "Check that it lets harmless texts pass.")
    return ok(SUBJECT, f"answers after {(time.monotonic() - began) * 1000:.0f} ms")
