r"""Text from outside, made fit to be printed: the one place that does it.

Ids, names, reasons, failures and payloads are what their writers chose. Printed as they are, an
escape character in one of them steers the terminal, a bidirectional override shows another text
than the one that is there, and a newline fakes a row. What is not printable is therefore shown as
its escape, as Python's `repr` does: `\x1b`, `\u202e`, `\n`. Markup is never read: brackets are
text.
"""

import re
from typing import Final

from rich.text import Text

_ONE_CHARACTER_ESCAPES: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
# In a JSON document only indentation stands outside of strings.
_NOT_PLAIN_IN_JSON: Final = re.compile(r"[^\n -~]+")


def printable(text: str) -> str:
    """The text in one line, whatever is not printable as its escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def one_line(text: str) -> str:
    """The text in one line, runs of white space as one space; for prose such as messages."""
    return printable(" ".join(text.split()))


def styled(text: str, style: str = "") -> Text:
    """The text, safe to print, in a style of ours."""
    return Text(printable(text), style)


def printable_json(document: str, encoding: str = "utf-8") -> str:
    """A JSON document of the same value without characters that are not printable, or that the
    encoding lacks.
    """
    return _NOT_PLAIN_IN_JSON.sub(lambda match: _json_characters(match[0], encoding), document)


def _escape(char: str) -> str:
    short = _ONE_CHARACTER_ESCAPES.get(char)
    if short is not None:
        return short
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_characters(text: str, encoding: str) -> str:
    if text.isprintable() and _is_encodable(text, encoding):
        return text
    return "".join(_json_character(char, encoding) for char in text)


def _json_character(char: str, encoding: str) -> str:
    if char.isprintable() and _is_encodable(char, encoding):
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _is_encodable(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
