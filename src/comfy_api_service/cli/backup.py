"""`backup`: everything that a new machine needs, in one file, made while the service runs."""

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Final

import typer

from comfy_api_service.cli.configuration import effective
from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.output import examples, run, say
from comfy_api_service.cli.transfer import in_bytes, transfer

if TYPE_CHECKING:
    from comfy_api_service.domain.backup import Manifest

EXAMPLES: Final = examples(
    "comfy-api backup /backup                       # a file of its own, named after the time",
    "comfy-api backup /backup --keep 14             # and the oldest beyond 14 are deleted",
    "comfy-api backup before-upgrade.tar",
    "comfy-api backup - | ssh store 'cat > comfy-api.tar'",
    "comfy-api restore --check before-upgrade.tar   # is it whole?",
)
STDOUT: Final = "-"
_NAME: Final = re.compile(r"comfy-api-\d{8}T\d{6}Z\.tar")
_LEFT: Final = re.compile(rf"\.{_NAME.pattern}\.\d+\.part")
_LEFT_SECONDS: Final = 86_400
"""What a killed command left of an archive is deleted when it is so old."""


def backup(
    to: Annotated[
        str,
        typer.Argument(
            metavar="[TO]",
            help="A file, a folder for one named after the time, or - for stdout.  [dim]\\[this folder][/dim]",
            show_default=False,
        ),
    ] = ".",
    keep: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Then delete the oldest of that folder beyond N.")
    ] = None,
    with_bucket: Annotated[
        bool,
        typer.Option(
            "--with-bucket", help="Results that are in an S3 store, too; else they are only listed."
        ),
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Exit with 0 although results were missing in the store.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="The service's folder.  [dim]\\[DATA_DIR, ./data][/dim]")
    ] = None,
) -> None:
    """Back up the service, while it runs or not: database, results, key. Prints the archive's path.

    The database is copied as it is at one moment, then the results that it names. The archive appears under its name
    only when it is whole. It holds prompts, pictures and keys: keep it as secret as the service. With PostgreSQL,
    pg_dump of the server's version or newer must be on PATH.
    """
    settings = effective(data_dir=data_dir)
    from comfy_api_service.bootstrap import backups  # noqa: PLC0415 - loads database and storage
    from comfy_api_service.cli.doctor.shown import effective_settings  # noqa: PLC0415
    from comfy_api_service.cli.starting import start_faults  # noqa: PLC0415

    path = None if to == STDOUT else _path(Path(to))
    if keep is not None and not Path(to).is_dir():
        raise Fault(
            "--keep is for a folder of backups.", "Name the folder: `comfy-api backup /backup --keep 14`."
        )
    work_in = settings.data_dir if path is None else path.parent
    with start_faults(settings), refusals(), transfer() as told, _written(path) as file:
        manifest = run(
            backups.back_up(
                settings,
                file,
                told,
                shown=effective_settings(settings),
                with_bucket=with_bucket,
                work_in=work_in,
            )
        )
    if path is not None:
        print(path)
        say(summary(manifest, path.stat().st_size))
        if keep is not None:
            _forget(path.parent, keep)
    if not manifest.results and manifest.objects:
        say(f"{manifest.objects} results are in the bucket and not in the archive: see docs/BACKUP.md")
    if manifest.absent and not allow_missing:
        raise Fault(
            f"The backup is written, but {len(manifest.absent)} results that have a row were missing or damaged:",
            "`comfy-api doctor` looks at the store; --allow-missing accepts it.",
            lines=manifest.absent[:20],
        )


def summary(manifest: "Manifest", size: int | None = None) -> str:
    """What it holds, in a line."""
    census = manifest.census
    parts = [f"{census.accounts} accounts", f"{census.jobs} jobs ({census.open_jobs} open)"]
    parts += [f"{census.workflows} workflows", f"{manifest.objects} results"]
    return ", ".join(parts) + (f", {in_bytes(size)}" if size is not None else "")


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What backups refuse, and what disks do, as `Fault`."""
    from comfy_api_service.domain.backup import BackupRefused  # noqa: PLC0415

    try:
        yield
    except BackupRefused as refused:
        raise Fault(str(refused), refused.remedy) from None


def _path(to: Path) -> Path:
    """Where the archive goes. Raises `Fault`."""
    if to.is_dir():
        to /= time.strftime("comfy-api-%Y%m%dT%H%M%SZ.tar", time.gmtime())
    if to.exists():
        raise Fault(f"{to} is there already.", "Give another name, or delete it.")
    if not to.parent.is_dir():
        raise Fault(f"There is no folder {to.parent}.", f"mkdir -p {to.parent}")
    return to


@contextlib.contextmanager
def _written(path: Path | None) -> Iterator[IO[bytes]]:
    """A file that appears under its name when it is whole and on the disk; nothing is left of a half one."""
    if path is None:
        if sys.stdout.isatty():
            raise Fault(
                "An archive is nothing for a terminal.", "Send it somewhere: `comfy-api backup - > FILE`."
            )
        yield sys.stdout.buffer
        return
    from comfy_api_service.storage.archive import created  # noqa: PLC0415

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with created(part) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # unlike a rename it replaces nothing
    except FileExistsError:
        raise Fault(f"{path} is there already.", "Give another name, or delete it.") from None
    except OSError as fault:
        raise Fault(
            f"The archive cannot be written: {(fault.strerror or str(fault)).lower()}.",
            f"Make room in {path.parent}, and make it writable for this user.",
        ) from fault
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _forget(folder: Path, keep: int) -> None:
    """Delete the oldest archives of this folder; names sort by time."""
    for path in folder.iterdir():
        if _LEFT.fullmatch(path.name) and time.time() - path.stat().st_mtime > _LEFT_SECONDS:
            path.unlink(missing_ok=True)
    named = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    for path in named[:-keep]:
        path.unlink(missing_ok=True)
        say(f"deleted {path}")
