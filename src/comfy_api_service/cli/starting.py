"""What commands do first that open data folder and database."""

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from comfy_api_service.cli.faults import Fault

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings

FILES_WANTED: Final = 65_536


@contextlib.contextmanager
def start_faults(settings: "Settings") -> Iterator[None]:
    """What opening data folder and database can meet, as `Fault`."""
    from comfy_api_service.bootstrap.folder import DataFolderInUse, DataFolderUnusable  # noqa: PLC0415
    from comfy_api_service.db.migrate import SchemaTooNew  # noqa: PLC0415
    from comfy_api_service.db.problems import DatabaseUnusable  # noqa: PLC0415
    from comfy_api_service.outbound.hook import HookUnusable  # noqa: PLC0415

    folder = settings.data_dir.absolute()
    try:
        yield
    except DataFolderInUse:
        raise Fault(
            f"Another process of the service works in {folder}.",
            "Stop that one, or give this one a folder of its own with --data-dir.",
        ) from None
    except SchemaTooNew as error:
        elsewhere = "DATABASE_URL" if settings.postgres_url else "--data-dir"
        raise Fault(
            str(error), f"Update this program, or give it a database of its own with {elsewhere}."
        ) from None
    except HookUnusable as error:
        raise Fault(
            f"PROMPT_HOOK cannot be used: {error}.",
            "Install the package beside this program, or name its folder in PYTHONPATH.",
        ) from None
    except DatabaseUnusable as error:
        raise Fault(f"The database cannot be used: {error}.", error.problem.remedy) from None
    except DataFolderUnusable as error:
        raise Fault(
            str(error),
            f"Make {folder} a folder that this user can write to, or give another with --data-dir.",
        ) from None
    except sqlite3.DatabaseError as error:
        raise Fault(
            f"The database in {folder} cannot be used: {error}.", "`comfy-api doctor` says more."
        ) from error
    except OSError as error:
        raise Fault(
            f"The data folder cannot be used: {error.strerror or error}.",
            f"Make room in {folder} and make it writable, or give another folder with --data-dir.",
        ) from error


def start_logs(settings: "Settings") -> None:
    from comfy_api_service.bootstrap.reporting import log_processors  # noqa: PLC0415
    from comfy_api_service.telemetry.logs import configure_logs  # noqa: PLC0415

    configure_logs(
        level=settings.log_level,
        as_json=logs_as_json(settings.log_format),
        messages=settings.log_fault_messages,
        processors=log_processors(settings),
    )


def logs_as_json(choice: str) -> bool:
    return choice == "json" or (choice == "auto" and not sys.stderr.isatty())


def raise_file_limit() -> None:
    """Let the process have as many sockets as the system allows it; the usual soft limit is 1 024."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
