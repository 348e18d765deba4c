"""Lines in which threads have written into each other.

Python's ``trt.Logger`` writes a line in pieces: the parts of the time, the tag, the severity, the message, the line
break. Two builds at once therefore leave ``[11/21/2026-07:[11/21/2026-07:33:00] [TRT] [V] text`` and, on a later line,
``33:00] [TRT] [I] other text``. A message itself is one piece, so that heads can be put together again.
"""

from __future__ import annotations

import re

from pytest_trtgray.logs.headers import Header, Headers

_TEMPLATE = "[##/##/####-##:##:##] [TRT] [S] "  # #: a digit, S: a severity
_TIME = len("[##/##/####-##:##:##] ")
_SEVERITIES = "FEWIV"
_MARK = "] [TRT] ["
# Where the logger's pieces may end: before and after a number, after the time, after the severity
_ENDS = (len(_TEMPLATE), _TIME, 20, 18, 17, 15, 14, 12, 11, 7, 6, 4, 3, 1)
_TAIL = re.compile(r"\[\d\d/[\d/:-]*(?:\] )?$|\[$")
_REMAINDER = re.compile(r"[\d/:-]*\] \[TRT\] \[[FEWIV]\] |\[TRT\] \[[FEWIV]\] ")
# What says its own end, so that another message may follow without a line break between them.
_CLOSED = re.compile(r"(?:Total|Max) [\w ]*Memory: \d+ bytes(?=\S)")
_SURE = len("[##/##/####")  # characters of a head that are one, even if a message stands before them
_MAX_HEADS = 16
_NEAR_S = 5

Segment = tuple[Header | None, str]


class Splices:
    """Puts heads and messages together again; remembers those that are incomplete."""

    def __init__(self, headers: Headers) -> None:
        self._headers = headers
        self._heads: list[str] = []  # beginnings of prefixes whose rest, or message, comes later
        self._breaks = 0  # line breaks that are yet to come, of messages that were written without

    def is_break(self, line: str) -> bool:
        """Whether an empty line is the line break of a message that another one followed at once."""
        if line or not self._breaks:
            return False
        self._breaks -= 1
        return True

    def inside(self, text: str) -> bool:
        """Whether a message of one line may hold another."""
        return _MARK in text or (bool(self._heads) and _CLOSED.match(text) is not None)

    def may_be_inside(self, texts: str) -> bool:
        """Whether any of the messages in a text may hold another."""
        return bool(self._heads) or _MARK in texts

    def concerns(self, line: str) -> bool:
        """Whether a line without a whole prefix may be the rest of an earlier one, or hold one."""
        return bool(self._heads) or _MARK in line

    def tail(self, before: str, line: str) -> str:
        """The head at the end of a message that a line goes on with; empty if it goes on with none."""
        rest, begun = _REMAINDER.match(line), _TAIL.search(before[-len(_TEMPLATE) :])
        if rest is None or begun is None or _fit(begun[0] + rest[0], _TEMPLATE) < len(_TEMPLATE):
            return ""
        self._heads.append(begun[0])
        return begun[0]

    def split(self, header: Header | None, line: str, last: Header | None) -> list[Segment]:
        """The messages of a line; one without header goes on with an earlier one, or has none.

        Args:
            header: of the line, if it begins with one.
            line: what follows that.
            last: the header of the message before. A head of another time is part of a name.
        """
        segments: list[Segment] = []
        while True:
            position = 0
            while position < len(line):
                ended, end = self._head_at(line, position, last)
                if end == position:
                    break
                if ended is not None:
                    if header is not None:
                        self._keep(header.prefix)  # its message comes later
                    header = ended
                position = end
            body, line = self._cut(line[position:], last)
            if header is None and (body or not position) and (waiting := self._waiting()):
                header = waiting
            if header is not None and not body and position:
                self._keep(header.prefix)
            elif header is not None or body or not position:
                segments += self._bodies(header, body)
            if not line:
                return segments
            header = None

    def rest(self) -> list[Segment]:
        """Heads of which nothing followed."""
        heads, self._heads = self._heads, []
        return [(self._headers.of(head), "") if len(head) == len(_TEMPLATE) else (None, head) for head in heads]

    def _bodies(self, header: Header | None, body: str) -> list[Segment]:
        """A message, and one that was written before its line break."""
        match = _CLOSED.match(body)
        if match and (waiting := self._waiting()):
            self._breaks += 1
            return [(header, match[0]), (waiting, body[match.end() :])]
        return [(header, body)]

    def _head_at(self, line: str, position: int, last: Header | None) -> tuple[Header | None, int]:
        """A head that ends here, if one does, and where the text goes on; the position itself if there is no head."""
        there = line[position : position + len(_TEMPLATE)]
        if _fit(there, _TEMPLATE) == len(_TEMPLATE) and self._is_near(there, last):
            return self._headers.of(there), position + len(_TEMPLATE)
        if len(self._heads) >= _MAX_HEADS:  # no threads, but a text that looks like it
            return None, position
        expected = last.prefix[:_TIME] + _TEMPLATE[_TIME:] if last is not None and last.prefix else _TEMPLATE
        for begun in self._heads:
            count = _whole_pieces(len(begun), _fit(there, expected[len(begun) :]))
            if not count:
                continue
            self._heads.remove(begun)
            if len(begun) + count == len(_TEMPLATE):
                return self._headers.of(begun + there[:count]), position + count
            self._keep(begun + there[:count])
            return None, position + count
        count = _whole_pieces(0, _fit(there, expected))
        if count > 1 or (count and line.startswith(expected[:_SURE], position + 1)):
            self._keep(there[:count])
            return None, position + count
        return None, position

    def _cut(self, text: str, last: Header | None) -> tuple[str, str]:
        """A message of one character at least, and what follows from the next head on."""
        found = text.find("[", 1)
        while found >= 0:
            there = text[found : found + len(_TEMPLATE)]
            fits = _fit(there, _TEMPLATE)
            if (fits == len(_TEMPLATE) and self._is_near(there, last)) or (fits == len(there) > _SURE):
                return text[:found], text[found:]
            found = text.find("[", found + 1)
        return text, ""

    def _is_near(self, head: str, last: Header | None) -> bool:
        header = self._headers.of(head)
        return header is None or last is None or not last.time_s or abs(header.time_s - last.time_s) <= _NEAR_S

    def _waiting(self) -> Header | None:
        """The first whole head that has no message yet."""
        for head in self._heads:
            if len(head) == len(_TEMPLATE):
                self._heads.remove(head)
                return self._headers.of(head)
        return None

    def _keep(self, head: str) -> None:
        self._heads.append(head)


def _fit(text: str, template: str) -> int:
    """How many characters of a text are as the template says."""
    count = 0
    for have, want in zip(text, template, strict=False):
        if have != want and not (want == "#" and have in "0123456789") and not (want == "S" and have in _SEVERITIES):
            break
        count += 1
    return count


def _whole_pieces(begun: int, count: int) -> int:
    """As many characters as end a piece of a head of which the first ``begun`` stand elsewhere."""
    return next((end - begun for end in _ENDS if begun < end <= begun + count), 0)
