"""`admin create|promote|key|list|disable`: accounts and keys, straight in the service's database.

A new key is the last line on stdout, and nothing else stands there: it can be piped. It is shown this once.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from comfy_api_service.cli import admin_input
from comfy_api_service.cli.configuration import effective
from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.options import AsJson
from comfy_api_service.cli.output import as_json_text, examples, run, say, stdout
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.credentials import Scope
from comfy_api_service.domain.principal import SHELL

if TYPE_CHECKING:
    from comfy_api_service.bootstrap.parts import People
    from comfy_api_service.domain.users import User
    from comfy_api_service.settings import Settings

T = TypeVar("T")
PAGE = 500
Wish = Callable[["People"], Coroutine[Any, Any, T]]
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Make accounts and keys, promote and disable, while the service runs or before its first start.",
)

Who = Annotated[
    str, typer.Argument(metavar="WHO", help="E-mail address, username or id.", show_default=False)
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of an SQLite database.  [dim]\\[DATA_DIR, ./data][/dim]")
]


@app.command(
    epilog=examples(
        "comfy-api admin create --email ada@example.com --username ada",
        "KEY=$(comfy-api admin create --email ada@example.com --username ada --password-file password.txt)",
        "comfy-api admin create --email bob@example.com --username bob --role user --tier pro",
    )
)
def create(
    email: Annotated[str, typer.Option(help="E-mail address.", show_default=False)],
    username: Annotated[str, typer.Option(help="Name to log in with.", show_default=False)],
    password: Annotated[
        str | None, typer.Option(help="To log in with; others on this machine may see it here.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the password; - reads it from stdin.")
    ] = None,
    tier: Annotated[str, typer.Option(help="What it may do, if it is no administrator.")] = "free",
    role: Annotated[Literal["admin", "user"], typer.Option(help="What it is.")] = "admin",
    data_dir: DataDir = None,
) -> None:
    """Make an account, an administrator if nothing else is said, and print its first API key, once.

    Without a password, which is asked for on a terminal, the account has keys but cannot log in.
    """
    address, name = admin_input.email(email), admin_input.username(username)
    secret = admin_input.password(password, password_file)

    async def work(people: "People") -> tuple["User", str]:
        made = await people.users.create(
            SHELL, email=address, username=name, password=secret, tier=tier, role=Role(role)
        )
        scopes = _scopes_of(made)
        _, text = await people.keys.create(made.id, SHELL, name="first", scopes=scopes)
        return made, text

    made, text = _with(data_dir, work)
    say(f"{made.username} is {_what(made)}: {made.id}")
    say("its first API key, shown this once:")
    print(text)


@app.command(
    epilog=examples("comfy-api admin promote ada", "comfy-api admin promote ada@example.com --demote")
)
def promote(
    who: Who,
    demote: Annotated[bool, typer.Option("--demote", help="Make an administrator a user again.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Make an account an administrator. Keys keep their scopes: for `/admin` it needs one with `admin`."""
    from comfy_api_service.services.users import Changes  # noqa: PLC0415 - loads the whole service

    changes = Changes(role=Role.USER if demote else Role.ADMIN)
    found = _with(data_dir, lambda people: _change(people, who, changes))
    say(f"{found.username} is {_what(found)}")


@app.command(
    epilog=examples(
        "comfy-api admin key ada",
        "comfy-api admin key ada --name printer --scopes read,write --expires 90d",
        "comfy-api admin key ada --expires 2027-01-31T00:00:00Z > key.txt",
    )
)
def key(
    who: Who,
    name: Annotated[str, typer.Option(help="What it is for.")] = "shell",
    scopes: Annotated[
        str | None,
        typer.Option(
            help="Of read, write, admin, comma-separated.  [dim]\\[all that the account may have][/dim]"
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: a time, or from now on, as 90d.  [dim]\\[never][/dim]")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make another API key for an account and print it, once."""
    wanted, until = admin_input.scopes(scopes), admin_input.moment(expires)
    if not 1 <= len(name) <= 100 or "\0" in name:
        raise admin_input.usage("--name must have 1 to 100 characters.")

    async def work(people: "People") -> tuple["User", str]:
        found = await people.users.named(who)
        _, text = await people.keys.create(
            found.id, SHELL, name=name, scopes=wanted or _scopes_of(found), expires_at=until
        )
        return found, text

    found, text = _with(data_dir, work)
    say(f"a key of {found.username}, shown this once:")
    print(text)


@app.command(
    "list", epilog=examples("comfy-api admin list", "comfy-api admin list --json | jq '.users[].email'")
)
def list_people(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the accounts, oldest first."""
    rows = [_facts(user) for user in _with(data_dir, _everybody)]
    if as_json:
        print(as_json_text({"users": rows}))
        return
    if not rows:
        say("no accounts; `comfy-api admin create` makes the first")
        return
    from rich.table import Table  # noqa: PLC0415 - loaded when there is something to show

    table = Table(box=None, pad_edge=False)
    for column in ("username", "email", "role", "tier", "disabled", "id"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            row["username"], row["email"], row["role"], row["tier"], row["disabled_at"] or "", row["user_id"]
        )  # fmt: skip
    stdout().print(table)


@app.command(epilog=examples("comfy-api admin disable ada", "comfy-api admin disable ada --enable"))
def disable(
    who: Who,
    enable: Annotated[bool, typer.Option("--enable", help="Let it in again.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Let an account in no more: logged out, its keys refused, until it is enabled again."""
    from comfy_api_service.services.users import Changes  # noqa: PLC0415 - loads the whole service

    found = _with(data_dir, lambda people: _change(people, who, Changes(disabled=not enable)))
    say(f"{found.username} is {'disabled' if found.disabled_at else 'enabled'}")


def _scopes_of(user: "User") -> list[Scope]:
    """All that its keys may have."""
    return list(Scope) if user.role is Role.ADMIN else [Scope.READ, Scope.WRITE]


async def _change(people: "People", who: str, changes: Any) -> "User":
    found = await people.users.named(who)
    return await people.users.change(found.id, changes, SHELL)


async def _everybody(people: "People") -> "list[User]":
    found: list[User] = []
    after = None
    while True:
        page = await people.users.page(after=after, limit=PAGE)
        found += [user for user in page.items if user.username is not None]
        after = page.next_cursor
        if after is None:
            return found


def _what(user: "User") -> str:
    return "an administrator" if user.role is Role.ADMIN else f"a user of the tier {user.tier}"


def _facts(user: "User") -> dict[str, Any]:
    from comfy_api_service.domain.times import iso, iso_or_none  # noqa: PLC0415

    return {
        "user_id": user.id,
        "username": user.username,
        "email": user.email,
        "name": user.name,
        "role": user.role.value,
        "tier": user.tier,
        "created_at": iso(user.created_at),
        "disabled_at": iso_or_none(user.disabled_at),
    }


def _with(data_dir: Path | None, act: "Wish[T]") -> T:
    settings = effective(data_dir=data_dir)
    from comfy_api_service.cli.starting import start_faults  # noqa: PLC0415
    from comfy_api_service.domain.errors import NotFound, ServiceError, Unavailable  # noqa: PLC0415

    async def work() -> T:
        async with _opened(settings) as people:
            return await act(people)

    with start_faults(settings):
        try:
            return run(work())
        except NotFound:
            raise Fault("There is no such account.", "`comfy-api admin list` names them.") from None
        except Unavailable as error:
            raise Fault(f"The database cannot be used: {error}", "`comfy-api doctor` says more.") from None
        except ServiceError as error:
            raise Fault(error.message) from None


@asynccontextmanager
async def _opened(settings: "Settings") -> "AsyncIterator[People]":
    from comfy_api_service.bootstrap import parts  # noqa: PLC0415 - loads what all roles stand on

    async with parts.people(settings) as people:
        yield people
