"""The faults of outputs: what a backend gave is not what it should be.

    MediaError                    not a whole, sound file of its kind
    ├── TooLarge                  more bytes or pixels than are accepted
    │   └── TooManyBytes          more than the reader was told to take
    ├── NotTaken                  not of a kind that is taken
    └── CannotConvert             sound, but not to be had in the format asked for

The texts are safe to show: no path, no content.
"""


class MediaError(Exception):
    """The bytes are not a whole, sound file of their kind."""


class TooLarge(MediaError):
    """More bytes or pixels than are accepted."""


class TooManyBytes(TooLarge):
    """More bytes than whoever reads was told to take."""


class CannotConvert(MediaError):
    """The file is sound, but the format asked for cannot hold it (an animation as JPEG, for example)."""


class NotTaken(MediaError):
    """The file is of another kind than is taken."""
