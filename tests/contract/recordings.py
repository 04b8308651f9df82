"""The recordings of real servers, grouped by the run of a server in which each was made."""

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "fixtures" / "recordings"

INVALID = (
    "invalid_unknown_node",
    "invalid_missing_model",
    "invalid_values",
    "invalid_link_type",
    "invalid_dangling_link",
    "invalid_no_outputs",
    "invalid_no_class_type",
    "invalid_missing_upload",
    "invalid_empty",
)
"""Nine prompts that were refused one after the other: each took a number."""

AFTER_INVALID = (
    "invalid_traversal_load",
    "runtime_error_traversal_save",
    "runtime_error_out_of_memory",
    "partly_invalid_outputs",
    "interrupt_running",
    "pipelined_two_and_delete_queued",
    "duplicate_prompt_id",
    "ws_reconnect_midrun",
    "upload_and_view",
    "load_uploaded_image",
    "info_endpoints",
)
MAIN = (
    "txt2img_success",
    "txt2img_all_cached",
    "txt2img_partly_cached",
    "model_free_success",
    "preview_image_temp",
    "save_image_websocket",
    "feature_flags_previews",
    "batch_outputs",
    *INVALID,
    *AFTER_INVALID,
)
MEDIA = (
    "text_output",
    "animated_webp",
    "animated_png",
    "video_mp4",
    "video_webm",
    "several_outputs",
    "numeric_types_coerced",
)
WORKER_DIES = "dangling_link_kills_worker"
MORE = (
    "save_image_websocket_with_metadata",
    "missing_model_in_combo_form",
    "unknown_key",
    "unknown_key_same",
    "unknown_key_changed",
    "unknown_key_link",
    "temporary_names",
    "same_graph_other_ids",
    "twin_outputs",
    "one_frame_webp",
    "one_frame_png",
    "free_memory",
    "odd_prompt_ids",
    "odd_stops",
    WORKER_DIES,
)


@dataclasses.dataclass(frozen=True)
class Session:
    """One run of a real server; the numbers and file counters of its recordings follow on each other."""

    version: str
    name: str
    scenarios: tuple[str, ...]
    previews: bool = False
    warm_ups: int = 0
    """Prompts that were run before the first recording: the same graph with other seeds and prefixes."""
    upscale_models: tuple[str, ...] = ()
    saved_before: int = 0
    """Pictures named rec_… that an earlier run had left in the output folder."""


SESSIONS = (
    Session("0.3.64", "main", MAIN, warm_ups=3),
    Session(
        "0.3.64",
        "previews",
        ("previews_legacy", "previews_with_metadata", "other_client_sees", "server_killed_midrun"),
        previews=True,
        saved_before=6,
    ),
    Session("0.3.64", "media", MEDIA),
    Session("0.8.0", "main", MAIN, previews=True),
    Session("0.8.0", "media", MEDIA),
    Session("0.3.64", "more", MORE, upscale_models=("random_compact_x2.safetensors",)),
    Session("0.8.0", "more", MORE, upscale_models=("random_compact_x2.safetensors",)),
)

Event = dict[str, Any]


@cache
def load(version: str, scenario: str) -> list[Event]:
    events: list[Event] = json.loads((FOLDER / version / f"{scenario}.json").read_text(encoding="utf-8"))
    if scenario == "other_client_sees":
        # The prompt before was still in the queue when this socket opened: the greeting says 1, and a 0
        # follows. Here each scenario begins with an idle server, so: greeting 0, nothing follows.
        first = next(i for i, e in enumerate(events) if e["dir"] == "ws")
        events[first]["data"]["status"]["exec_info"]["queue_remaining"] = 0
        del events[first + 1]
    return events


def http_events(events: list[Event]) -> list[Event]:
    return [e for e in events if e["dir"] == "http"]


def frames(events: list[Event]) -> list[Event]:
    """What came over the socket, without the recorder's own marks."""
    return [e for e in events if e["dir"] == "ws" and e["type"] != "TIMEOUT"]
