"""Golden values of the original tokenizers on messy text: OpenAI's and open_clip's `SimpleTokenizer`, with ftfy.

    python reference/messy_text.py 80 > runner/data/tests/golden/messy.json

Lines are pieced together from proper text of many scripts, mojibake of ten encodings, HTML references, escapes and chance. A number of
10,000 was compared once; a few are kept. Made with open_clip 3.3, clip-anytorch 2.6, ftfy 6.3.1 and regex 2026.11.
"""

import html
import json
import random
import sys
import types

import packaging.version

sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")  # which clip imports and new setuptools lack
sys.modules["pkg_resources"].packaging = packaging

import ftfy.bad_codecs
import open_clip
from clip.simple_tokenizer import SimpleTokenizer

R = random.Random(1)
TEXTS = """Schöne Grüße aus München|naïve café déjà vu|L’été d’Anna “cité” — fin…|Привет, мир! Ёлка|Ελληνικά Σίσυφος|日本語のテキスト|한국어 텍스트|العربية مرحبا|
עברית שלום|ไทย हिन्दी|emoji 😀 👩‍👩‍👧‍👦 🇫🇷 ❤️|zażółć gęślą jaźń|Čeština příliš žluťoučký kůň|İstanbul ışık ğüşöç|½ ² ³ ¼ × ÷ ± µ|€100 £20 ¥5 ¢3|© ® ™ § ¶ † ‡ •|à la mode|
voilà às àquele|it's should've we'll I'M they'd 'ſ|1234567890 3.14|AT&T R&D &c|<b>bold</b>|price: $5.00 (50% off!) #tag @user|«guillemets» ‹single›|¿Qué? ¡Sí!|ﬁne ﬀ ﬆ Ĳ ŉ ǅ|
ＦＵＬＬ　ｗｉｄｔｈ ﾊﾝｶｸ|Å Ø æ œ ß ſ|ñ n\u0303 e\u0301 \u0345|\u202eRTL\u202c \u200bzw\u200d|don‘t ‚low‛ „quote‟|a\u00a0b\u2003c|│┌┐▀▄█|∂∑∏√∞∫≈≠≤≥|ā ē ī ū ō|Ő Ű ő ű|
λόγος β€™ā€|ГўВЂВ вЂ”|Ã Â Ã¡|˜ˆˇ˘˛¸¨|\ufffd ok|\u058c \u0558""".replace("\n", "").split("|")
ENCODINGS = ["latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "sloppy-windows-1250", "sloppy-windows-1253"]
ENCODINGS += ["sloppy-windows-1254", "sloppy-windows-1257", "iso-8859-2", "macroman", "cp437"]
REFERENCES = "&eacute; &EACUTE; &notit; &copy2024 &#x80; &#150; &#xD800; &#0; &#13; &#x1F600; &NTILDE; &amp;amp;amp; &lt;b&gt; &; &#; &#x; &hellip;"
REFERENCES = (REFERENCES + " &nbsp; &zwj; &Tab; &NewLine; &fjlig; &SZLIG; &#11; &#xfdd0;").split()
SPECIAL = "<|startoftext|> <|endoftext|> <start_of_text> <end_of_text> <|STARTOFTEXT|> !<|endoftext|> '<end_of_text> <|end".split()
CONTROLS = ["\x1b[31mred\x1b[0m", "\x1b[", "\x1b[12;3", "\x9b31m", "\x85", "\r\n", "\u2028", "\x1a", "\x0b", "\x1c", "\ufeff", "\x00", "\u00ad", "\t"]
BLOCKS = [(0x20, 0x7F), (0x80, 0x250), (0x2000, 0x2070), (0x370, 0x530), (1, 0x20), (0xFF00, 0xFFF0), (0x2500, 0x25D0), (0x300, 0x370)]
BLOCKS += [(0, 0xD800), (0x10000, 0x20000)]


def mojibake(text):
    for _ in range(R.choice([1, 1, 1, 2, 2, 3])):
        try:
            text = text.encode("utf-8").decode(R.choice(ENCODINGS) if R.random() < 0.6 else R.choice(ENCODINGS[:2]))
        except UnicodeError:
            break
    return text


def numeric(text):
    return text.encode("ascii", "xmlcharrefreplace").decode()


def chance():
    return "".join(chr(R.randrange(*R.choice(BLOCKS))) for _ in range(R.randrange(1, 8)))


def piece():
    text, dice = R.choice(TEXTS), R.random()
    for share, make in [
        (0.25, lambda: text),
        (0.55, lambda: mojibake(text)),
        (0.62, lambda: mojibake(text).replace("\xa0", " ")),
        (0.66, lambda: mojibake(text).replace("\x81", "\ufffd").replace("\x9d", "\ufffd").replace("\x8d", "?")),
        (0.72, lambda: html.escape(text) if R.random() < 0.5 else numeric(text)),
        (0.76, lambda: html.escape(html.escape(numeric(text)))),
        (0.80, lambda: R.choice(REFERENCES)),
        (0.83, lambda: R.choice(CONTROLS)),
        (0.87, lambda: R.choice(SPECIAL)),
        (0.89, lambda: R.choice(["x" * 100, "ab" * 60, "é" * 80, "!" * 90, "9" * 50, "日" * 100])),
        (1.00, chance),
    ]:
        if dice < share:
            return make()


def line():
    return "".join(piece() + R.choice([" ", "", " ", "  ", "\n", ", "]) for _ in range(R.randrange(1, 8)))


ftfy.bad_codecs.ok()
openai, other = SimpleTokenizer(), open_clip.get_tokenizer("ViT-B-32")
lines = [line() for _ in range(int(sys.argv[1]))]
cases = [dict(text=text, openai=openai.encode(text), open_clip=other.encode(text)) for text in lines]
for case in cases:
    if case["open_clip"] == case["openai"]:
        del case["open_clip"]
print(json.dumps(cases, separators=(",", ":")).replace("},{", "},\n{"))
