"""The faults of outputs: what a backend gave is not what it should be.

    MediaError                    not a whole, sound file of its kind
    ├── TooLarge                  more bytes or pixels than are accepted
    └── CannotConvert             sound, but not to be had in the format asked for

The texts are safe to show: no path, no content.
"""


class MediaError(Exception):
    """The bytes are not a whole, sound file of their kind."""


class TooLarge(MediaError):
    """More bytes or pixels than are accepted."""


class CannotConvert(MediaError):
    """The file is sound, but the format asked for cannot hold it (an animation as JPEG, for example)."""
