"""`restore`: a backup in place of nothing, verified before it counts."""

from pathlib import Path
from typing import Annotated, Final

import typer

from comfy_api_service.cli.backup import refusals, summary
from comfy_api_service.cli.configuration import effective
from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.output import examples, run, say
from comfy_api_service.cli.transfer import transfer

EXAMPLES: Final = examples(
    "comfy-api restore /backup/comfy-api-20260301T031500Z.tar",
    "comfy-api restore --check /backup/comfy-api-20260301T031500Z.tar   # reads it to its end, changes nothing",
    "comfy-api restore before-upgrade.tar --data-dir /srv/comfy-api/data",
    "comfy-api restore before-upgrade.tar --force   # what is there now is moved aside",
)


def restore(
    archive: Annotated[
        Path, typer.Argument(metavar="ARCHIVE", help="What `backup` made.", show_default=False)
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Verify the archive and say what it holds; restore nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Although there is data: it is moved aside, and said where to.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="The service's folder.  [dim]\\[DATA_DIR, ./data][/dim]")
    ] = None,
) -> None:
    """Restore a backup. Nothing may run on the place meanwhile, and it must be empty unless --force says otherwise.

    The whole archive is verified first. Then results and key are put in their places, the database last, and its schema
    is brought up to date. Jobs that were open go on when the service starts.
    """
    settings = effective(data_dir=data_dir)
    from comfy_api_service.bootstrap import backups  # noqa: PLC0415 - loads database and storage
    from comfy_api_service.cli.starting import start_faults  # noqa: PLC0415
    from comfy_api_service.db.migrate import SchemaTooNew  # noqa: PLC0415

    if check:
        with refusals(), transfer() as told:
            try:
                manifest = run(backups.verify(archive, told))
            except SchemaTooNew as newer:
                raise Fault(
                    f"The archive is whole, but newer than this program: schema {newer.revision}."
                ) from None
        print(f"{archive} is whole: {summary(manifest)}; made {manifest.made_at} by {manifest.version}")
        return
    with start_faults(settings), refusals(), transfer() as told:
        manifest, aside, same_key = run(backups.bring_back(settings, archive, told, force=force))
    say(f"restored: {summary(manifest)}; made {manifest.made_at} by {manifest.version}")
    if aside is not None:
        say(f"what was here is now in {aside}: delete it when all is well")
    if not same_key:
        say("SECRET_KEY is another one than then: links and logins of then are not good any more")
    if not manifest.results and manifest.objects:
        say(f"{manifest.objects} results are not in the archive: the bucket must have them (docs/BACKUP.md)")
    if manifest.absent:
        say(f"{len(manifest.absent)} results were missing already when the backup was made")
