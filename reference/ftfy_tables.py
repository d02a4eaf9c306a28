"""Tables of ftfy's heuristics (Robyn Speer, Apache-2.0), for runner/data/src/text/encoding.rs.

    python reference/ftfy_tables.py > runner/data/embedded/ftfy.json

`encodings`: name, and the characters of bytes 0x80 to 0xFF and 0x1A. `bad`: what makes text look like mojibake, as a regular
expression of the crate `regex`. `first` and `continuation`: characters that bytes of a UTF-8 sequence look like in those encodings, by
the sequence's length. Made with ftfy 6.3.1.
"""

import json
import re

from ftfy import badness, chardata


def escaped(character):
    return character if character.isalnum() and character.isascii() else f"\\x{{{ord(character):X}}}"


def members(text):
    """The members of a character class: single characters and ranges, escapes undone."""
    i, out = 0, []
    while i < len(text):
        if text[i] == "\\":
            if text[i + 1] in "sw":
                raise ValueError(text)
            if text[i + 1] == "x":
                out.append(escaped(chr(int(text[i + 2 : i + 4], 16))))
                i += 4
            else:
                out.append(escaped(text[i + 1]))
                i += 2
        elif text[i] == "-" and 0 < i < len(text) - 1:
            out.append("-")
            i += 1
        else:
            out.append("^" if text[i] == "^" and i == 0 else escaped(text[i]))
            i += 1
    return "".join(out)


def translate(pattern):
    """A verbose Python pattern as one of the crate `regex`."""
    out, i = [], 0
    while i < len(pattern):
        c = pattern[i]
        if c == "[":
            end = pattern.index("]", i + 1)
            out.append("[" + members(pattern[i + 1 : end]) + "]")
            i = end + 1
        elif c == "#":
            i = pattern.index("\n", i)
        elif c.isspace():
            i += 1
        elif c == "\\":
            name = pattern[i + 1]
            # Python counts the separators U+001C to U+001F as white space, and no marks as parts of words.
            out.append({"s": r"[\s\x{1C}-\x{1F}]", "w": r"[\p{L}\p{N}_]"}[name])
            i += 2
        elif c in "|^?.":
            out.append(c)
            i += 1
        else:
            out.append(escaped(c))
            i += 1
    return "".join(out)


def members_of(name):
    return "".join(c for c in map(chr, range(0x110000)) if re.fullmatch(f"[{chardata.UTF8_CLUES[name]}]", c))


encodings = []
for name in chardata.CHARMAP_ENCODINGS:
    codes = bytes([*range(0x80, 0x100), 0x1A])
    characters = codes.decode(name)
    assert len(characters) == 129 and characters.encode(name) == codes
    encodings.append([name, characters])
tables = {
    "encodings": encodings,
    "bad": translate(badness.BADNESS_RE.pattern),
    "first": [members_of(f"utf8_first_of_{n}") for n in (2, 3, 4)],
    "continuation": members_of("utf8_continuation"),
    "continuation_strict": members_of("utf8_continuation_strict"),
}
print(json.dumps(tables, ensure_ascii=True, indent=0))
