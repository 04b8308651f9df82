"""What `Accept` asks for."""

from collections.abc import Iterable


def accepted_types(headers: Iterable[str]) -> tuple[str, ...]:
    """Media types by preference; none if anything will do, as browsers and `curl` say."""
    ranked: list[tuple[float, int, str]] = []
    for part in ",".join(headers).split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = _quality(parameters)
        if media_type and quality > 0:
            ranked.append((-quality, len(ranked), media_type))
    if any(media_type == "*/*" for _, _, media_type in ranked):
        return ()
    return tuple(media_type for _, _, media_type in sorted(ranked))


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
