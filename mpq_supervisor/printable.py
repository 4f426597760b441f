"""Text that others have written, as one line that a terminal or a log can show. Pure."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with what is not printed (control and format characters, line ends, lone surrogates) as its escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
