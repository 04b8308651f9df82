"""WebM and Matroska: tags, titles, attachments and chapters become Void elements of the same length.

No offset changes, so the file's own index stays right. Checksums of what was changed are voided too. A file
without stated lengths (a live recording) can be cut between two elements without this being noticed.
"""

from typing import Final

from comfy_api_service.media.sieve import Sieve, Steps

_EBML, _SEGMENT, _CLUSTER, _INFO, _TRACKS = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1549A966, 0x1654AE6B
_TRACK, _VIDEO, _WIDTH, _HEIGHT, _VOID = 0xAE, 0xE0, 0xB0, 0xBA, 0xEC
_TOP: Final = frozenset({_EBML, _SEGMENT, _CLUSTER, _INFO, _TRACKS, 0x114D9B74, 0x1C53BB6B})
"""With SeekHead and Cues: the elements of the upper levels that stay."""
_ENTERED: Final = frozenset({_SEGMENT, _INFO, _TRACKS, _TRACK, _VIDEO})
_VOIDED: Final = frozenset({0x7BA9, 0x7384, 0x3C83AB, 0x3E83BB, 0x536E, 0xBF, _VOID})
"""Title, names of this and neighbouring files, name of a track, checksum; a Void may hide anything."""
_DEEPEST: Final = 8


class WebmCleaner(Sieve):
    name = "WebM file"

    def __init__(self) -> None:
        super().__init__()
        self.known = True
        self._seen: set[int] = set()
        self._within: list[tuple[int, int | None]] = []
        """The elements that are entered, each with the position of its end, if that is known."""
        self._width = self._height = 0

    def _steps(self) -> Steps[None]:
        while True:
            while self._within and self._within[-1][1] == self._position:
                self._within.pop()
            if not (yield from self._wait()):
                break
            yield from self._element()
        if any(end is not None for _, end in self._within) or not {_TRACKS, _CLUSTER} <= self._seen:
            raise self._broken("it is cut short")

    def _element(self) -> Steps[None]:
        head, name, length = yield from self._element_head()
        if not self._seen and name != _EBML:
            raise self._broken("it does not begin as one")
        self._seen.add(name)
        if length is None or name in _ENTERED:
            if (length is None and name not in {_SEGMENT, _CLUSTER}) or len(self._within) >= _DEEPEST:
                raise self._broken("its structure is damaged")
            self._emit(head)
            if length is None and name == _CLUSTER and self._within and self._within[-1][0] == _CLUSTER:
                self._within.pop()
            self._within.append((name, None if length is None else self._position + length))
        elif not self._kept(name):
            yield from self._void(len(head), length)
        elif name in {_WIDTH, _HEIGHT} and length <= 8:
            self._emit(head)
            data = yield from self._take(length)
            self._emit(data)
            self._measure(name, int.from_bytes(data))
        else:
            self._emit(head)
            yield from self._copy(length)

    def _kept(self, name: int) -> bool:
        """Whether an element stays: of the upper levels what is known, deeper what is not known to tell."""
        inside = self._within[-1][0] if self._within else None
        if inside in {None, _SEGMENT}:
            return name in _TOP
        if inside == _CLUSTER and name > 0xFFFFFF:  # a cluster of unknown length ended here
            return name in _TOP
        return name not in _VOIDED

    def _element_head(self) -> Steps[tuple[bytes, int, int | None]]:
        first = yield from self._take(1)
        extent = 9 - first[0].bit_length()
        if extent > 4:
            raise self._broken("its structure is damaged")
        name = first + (yield from self._take(extent - 1))
        first = yield from self._take(1)
        extent = 9 - first[0].bit_length()
        if extent > 8:
            raise self._broken("its structure is damaged")
        size = first + (yield from self._take(extent - 1))
        mask = (1 << 7 * extent) - 1
        value = int.from_bytes(size) & mask
        length = None if value == mask else value
        ends = [end for _, end in self._within if end is not None]
        if ends and self._position + (length or 0) > min(ends):
            raise self._broken("its structure is damaged")
        return name + size, int.from_bytes(name), length

    def _void(self, head: int, length: int) -> Steps[None]:
        """A Void element in the place of one whose head and content are so long."""
        total = head + length
        if total >= 9:
            self._emit(b"\xec\x01" + (total - 9).to_bytes(7))
            yield from self._blank(length, total - 9)
        else:
            self._emit(bytes((0xEC, 0x80 | total - 2)))
            yield from self._blank(length, total - 2)

    def _measure(self, name: int, value: int) -> None:
        if name == _WIDTH:
            self._width = self._width or value
        else:
            self._height = self._height or value
        if self.size is None and self._width and self._height:
            self.size = (self._width, self._height)
