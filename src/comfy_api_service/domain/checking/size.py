"""How much work a document is, told before the work is done."""

from collections.abc import Mapping


def count_values(document: object, most: int, *, letters: int | None = None) -> int:
    """The JSON values in the document, itself included; more than `most` are not counted on.

    With `letters` a text, and a key, counts once more for each so many of its characters.
    """
    count = 1
    waiting: list[object] = [document]
    while waiting and count <= most:
        value = waiting.pop()
        if isinstance(value, Mapping):
            count += len(value)
            if count > most:
                break
            waiting.extend(value.values())
            if letters is not None:
                count += sum(len(key) // letters for key in value if isinstance(key, str))
        elif isinstance(value, list):
            count += len(value)
            if count > most:
                break
            waiting.extend(value)
        elif letters is not None and isinstance(value, str):
            count += len(value) // letters
    return count
