"""What deployment files are held to: the shell's commands with their options, and the names of settings."""

from collections.abc import Sequence

import typer.main
from typer.core import TyperGroup

from comfy_api_service.cli.main import app
from comfy_api_service.settings import SECRET_FILES, Settings


def check_command(words: Sequence[str]) -> None:
    """The first word is one of the shell's commands, and takes the options that it is given."""
    command, *others = words
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert command in group.commands, command
    options = {option for parameter in group.commands[command].params for option in parameter.opts}
    assert {word for word in others if word.startswith("--")} <= options


def known_settings() -> set[str]:
    """Every variable that the service reads."""
    names = {name for name, field in Settings.model_fields.items() if field.validation_alias is None}
    for field in Settings.model_fields.values():
        names |= set(getattr(field.validation_alias, "choices", ()))
    return {name.upper() for name in names} | {f"{name}_FILE" for name in SECRET_FILES}
