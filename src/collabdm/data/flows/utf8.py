"""A stream of text in UTF-8, in which a mark replaces the bytes of another encoding.

A column that is not read may contain anything. Whoever finds the mark in a column that is read
refuses the table.
"""

import codecs
import re
from typing import Any

MARK = "\U0010ffff"  # no character: it occurs in no text
ESCAPED = re.compile("[\udc80-\udcff]")


class MarkedText:
    """A stream like its source; `is_faulty` is whether a byte was replaced so far."""

    closed = False

    def __init__(self, source: Any) -> None:
        self._source = source
        self._rest = b""
        self.is_faulty = False

    def read(self, size: int) -> bytes:
        """Read about `size` bytes, whole characters; nothing at the end."""
        while True:
            new = self._source.read(size)
            block = self._rest + new
            self._rest = b""
            if block.isascii():
                return block

            content, consumed = self._whole(block, final=not new)
            self._rest = block[consumed:]
            if content or not new:
                return content

    def _whole(self, block: bytes, final: bool) -> tuple[bytes, int]:
        """Return the whole characters of a block, and the number of its bytes in them."""
        try:
            _, consumed = codecs.utf_8_decode(block, "strict", final)
            return block[:consumed], consumed
        except UnicodeDecodeError:
            self.is_faulty = True
            text, consumed = codecs.utf_8_decode(block, "surrogateescape", final)
            return ESCAPED.sub(MARK, text).encode(), consumed

    def close(self) -> None:
        """Do nothing: whoever opened the source closes it."""
