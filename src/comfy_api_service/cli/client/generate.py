"""`generate`: a prompt in, a picture out."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from comfy_api_service.cli.faults import ExitCode, Fault
from comfy_api_service.cli.options import DEFAULT_SERVER, ApiKey, AsJson, Server
from comfy_api_service.cli.output import as_json_text, examples, run, say
from comfy_api_service.domain.generation_request import (
    BATCH_MAX,
    BATCH_MIN,
    CFG_MAX,
    CFG_MIN,
    CLIP_SKIP_MAX,
    CLIP_SKIP_MIN,
    SEED_MAX,
    SEED_RANDOM,
    SIZE_MAX,
    SIZE_MIN,
    STEPS_MAX,
    STEPS_MIN,
    STRENGTH_MAX,
    STRENGTH_MIN,
    UPSCALE_FACTOR_MAX,
    UPSCALE_FACTOR_MIN,
)

EXAMPLES = examples(
    'comfy-api generate "a lighthouse at dawn, watercolour" -o lighthouse.png',
    'comfy-api generate "a fox" --model sd_xl_base_1.0.safetensors --width 1024 --height 1024 -n 4 -o fox.png',
    'comfy-api generate "a fox" --lora add_detail.safetensors:0.6 --upscale 2 --seed 7 -o fox.webp',
    'comfy-api generate "the same in winter" --image photo.jpg --strength 0.6 -o winter.png',
    'comfy-api generate "a hat" --image portrait.png --mask hair.png -o hat.png',
    'comfy-api generate "a fox" -o - | display',
)
Format = Literal["original", "png", "jpeg", "webp"]
FORMATS: Mapping[str, Format] = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".png": "png"}
_PICTURE = "Picture"
_JOB = "Job"
_FILES = "Files"


def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shall show.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to save; several pictures: FILE_1 …; - is standard output. Its suffix chooses the format.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace files that are there.", rich_help_panel=_FILES)
    ] = False,
    format: Annotated[  # noqa: A002 - the option's name
        Format | None,
        typer.Option(
            help="Format of the files; default: by the suffix, else as made.", rich_help_panel=_FILES
        ),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="Of JPEG and WebP.", rich_help_panel=_FILES)
    ] = None,
    metadata: Annotated[
        Literal["strip", "embed"] | None,
        typer.Option(
            help="Write prompt, seed and parameters into the file, or nothing.", rich_help_panel=_FILES
        ),
    ] = None,
    preview: Annotated[
        bool,
        typer.Option(
            help="Show the picture, and how it comes about, in terminals that can (kitty, ghostty, WezTerm, iTerm2).",
            rich_help_panel=_FILES,
        ),
    ] = True,
    negative: Annotated[
        str | None,
        typer.Option("--negative", help="What it shall not show.", rich_help_panel=_PICTURE),
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=SIZE_MIN, max=SIZE_MAX, help="Pixels.", rich_help_panel=_PICTURE)
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=SIZE_MIN, max=SIZE_MAX, help="Pixels.", rich_help_panel=_PICTURE)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=STEPS_MIN, max=STEPS_MAX, help="Sampling steps.", rich_help_panel=_PICTURE),
    ] = None,
    cfg: Annotated[
        float | None,
        typer.Option(
            min=CFG_MIN, max=CFG_MAX, help="How closely to follow the prompt.", rich_help_panel=_PICTURE
        ),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Such as euler_a, dpm++_2m_karras.", rich_help_panel=_PICTURE)
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Such as karras; default: the sampler's.", rich_help_panel=_PICTURE)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=SEED_RANDOM, max=SEED_MAX, help="-1: random.", rich_help_panel=_PICTURE),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="See GET /models.", rich_help_panel=_PICTURE)
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", "-n", min=BATCH_MIN, max=BATCH_MAX, help="How many pictures.", rich_help_panel=_PICTURE
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:WEIGHT]", help="May be repeated.", rich_help_panel=_PICTURE),
    ] = None,
    clip_skip: Annotated[
        int | None, typer.Option(min=CLIP_SKIP_MIN, max=CLIP_SKIP_MAX, rich_help_panel=_PICTURE)
    ] = None,
    upscale: Annotated[
        float | None,
        typer.Option(
            min=UPSCALE_FACTOR_MIN,
            max=UPSCALE_FACTOR_MAX,
            metavar="FACTOR",
            help="Enlarge the finished picture.",
            rich_help_panel=_PICTURE,
        ),
    ] = None,
    upscale_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="By this model.", rich_help_panel=_PICTURE)
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Begin from this picture: a file, which is uploaded, or an upload's id, a job's id or an https URL.",
            rich_help_panel=_PICTURE,
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            min=STRENGTH_MIN,
            max=STRENGTH_MAX,
            help="How much of the image is made anew.",
            rich_help_panel=_PICTURE,
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="White where the image is made anew, black where it stays.",
            rich_help_panel=_PICTURE,
        ),
    ] = None,
    priority: Annotated[
        int | None, typer.Option(min=-10, max=10, help="Among your own jobs.", rich_help_panel=_JOB)
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Fail if not ready by then.", rich_help_panel=_JOB),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.", rich_help_panel=_JOB)
    ] = None,
    as_json: AsJson = False,
    server: Server = DEFAULT_SERVER,
    api_key: ApiKey = None,
) -> None:
    """Make a picture, follow its progress, and save it. Ctrl-C and SIGTERM cancel the job.

    What is not given, the service decides. Prints the absolute path of each file.
    """
    target = None if output is None or output == "-" else Path(output)
    to_stdout = output == "-"
    if image is None and (mask is not None or strength is not None):
        raise Fault(
            "--strength and --mask need a picture.", "Name one with --image.", exit_code=ExitCode.USAGE
        )
    if to_stdout and (as_json or (batch or 1) > 1):
        raise Fault(
            "-o - takes one picture, and no --json.", "Name a file with -o.", exit_code=ExitCode.USAGE
        )
    body: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative,
        "width": width,
        "height": height,
        "steps": steps,
        "cfg_scale": cfg,
        "sampler": sampler,
        "scheduler": scheduler,
        "seed": seed,
        "model": model,
        "batch_size": batch,
        "clip_skip": clip_skip,
        "loras": loras(lora or ()) or None,
        "upscale": _given({"model": upscale_model, "factor": upscale}) or None,
        "image": image,
        "strength": strength,
        "mask": mask,
        "priority": priority,
        "deadline": deadline,
        "labels": labels(label or ()) or None,
        "output": _given({"format": format or format_of(target), "quality": quality, "metadata": metadata})
        or None,
    }
    if target is not None and not force:
        from comfy_api_service.cli.client.saving import numbered, refuse_overwriting  # noqa: PLC0415

        refuse_overwriting(numbered([target] * (batch or 1)))
    run(
        _generate(
            _given(body),
            target,
            to_stdout=to_stdout,
            force=force,
            preview=preview,
            as_json=as_json,
            server=server,
            api_key=api_key,
        )
    )


async def _generate(
    body: Mapping[str, Any],
    target: Path | None,
    *,
    to_stdout: bool,
    force: bool,
    preview: bool,
    as_json: bool,
    server: str,
    api_key: str | None,
) -> None:
    from comfy_api_service.cli.client.api import Api  # noqa: PLC0415 - loads the HTTP client
    from comfy_api_service.cli.client.bars import bar  # noqa: PLC0415
    from comfy_api_service.cli.client.making import make  # noqa: PLC0415
    from comfy_api_service.cli.client.pictures import with_uploads  # noqa: PLC0415
    from comfy_api_service.cli.client.saving import write_out  # noqa: PLC0415

    async with Api(server, api_key) as api:
        body = await with_uploads(api, body)
        with bar(previews=preview) as shown:
            made = await make(api, body, shown)
        if to_stdout:
            for artifact in made.artifacts[:1]:
                await write_out(api.download(str(artifact["url"])), artifact)
            return
        paths = await made.save(target, force=force)
        if as_json:
            print(as_json_text(made.job))
            return
        seeds = [one["seed"] for one in made.artifacts if one.get("seed") is not None]
        say(f"{made.job_id}" + (f", seed {seeds[0]}" if seeds else ""))
        if preview:
            await asyncio.to_thread(preview_files, paths)
        for path in paths:
            print(path)


def preview_files(paths: Sequence[Path]) -> None:
    from comfy_api_service.cli.client.inline import encoded, protocol  # noqa: PLC0415

    how = protocol(os.environ, is_terminal=sys.stdout.isatty())
    if how is not None:
        for path in paths:
            sys.stdout.write(encoded(path.read_bytes(), how))


def loras(given: Sequence[str]) -> list[dict[str, Any]]:
    """`name` or `name:weight`, as the API takes them; a name may hold a colon itself."""
    found: list[dict[str, Any]] = []
    for one in given:
        name, colon, weight = one.rpartition(":")
        number = _number(weight)
        found.append({"name": name, "weight": number} if colon and number is not None else {"name": one})
    return found


def labels(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise Fault(
                f"--label {one} has no value.", "Write it as --label key=value.", exit_code=ExitCode.USAGE
            )
        found[key] = value
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def format_of(target: Path | None) -> Format | None:
    """A picture named .jpg shall be a JPEG; for .png nothing need be asked, as ComfyUI makes PNG."""
    found = None if target is None else FORMATS.get(target.suffix.lower())
    return None if found == "png" else found


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
