"""Golden values of CLIP's tokenizer: transformers' CLIPTokenizer over a small vocabulary, and OpenAI's clean-up.

    python reference/tokenizer.py runner/data/tests/golden

Writes `tokenizer/` (as `save_pretrained` leaves it) and `tokens.json`: a corpus, the merges learned from it, and nasty lines
with their token ids (`truncation=True`) and with what OpenAI's `basic_clean`, `whitespace_clean` and `lower` make of them.
Made with transformers 5.23, tokenizers 0.23 and ftfy 6.3.
"""

import collections
import html
import json
import os
import re
import sys

import ftfy
from transformers import CLIPTokenizer

CORPUS = [
    "a photo of the number: \"{}\".", "a photo of a cat.", "a photo of the thin digit seven.", "a drawing of a large, slanted zero",
    "handwritten numeral 3", "the digit 9, written thick", "a picture of an ankle boot", "a low-resolution photo of a T-shirt/top",
    "two trousers & a pullover", "it's the dog's bag", "a café in the rain", "sneakers, sandals, shirts", "one two three four five",
    "six seven eight nine ten", "a blurry photograph of the number five", "an image of a coat", "this is a dress", "photo photo photo",
]
MERGES = 150

LINES = [
    "", " ", "a photo of a cat", "A PHOTO OF A CAT", "  many   spaces\n\tand tabs ", "it's should've we'll I'M they'd 'S 'tis rock'n'roll",
    "1234567890 v2.0 3.14 ½ ² Ⅷ ٣", "café déjà vu naïve", "naive\u0301 e\u0301 o\u0302\u0323", "日本語のテキスト 写真", "한국어 텍스트", "العربية עברית", "ไทย हिन्दी",
    "😀 emoji 👩‍👩‍👧‍👦 test 🇫🇷", "&lt;b&gt;bold&lt;/b&gt; &amp;amp; x", "caf&eacute; &#233; &#xE9; &nbsp; &notit; &copy2024 &EACUTE;", "AT&T R&D &c &;",
    "ﬁne ligature oﬀice ﬆ", "ÅNGSTRÖM É", "İstanbul ıspanak", "ΣΊΣΥΦΟΣ ΟΔΥΣΣΕΎΣ", "Straße ẞ ǅ Ǆ", "<|startoftext|> hello <|endoftext|>", "<|STARTOFTEXT|>x<|EndOfText|>",
    "mixedÇase!!! ???... --- ___", "\u200bzero\u200bwidth\u200d \ufeffbom", "a\u00a0b\u2003c\u3000d\u2028e\u2029f\u0085g", "tab\x0bvt\x0cff\x1cfs\x00nul\x7fdel", "ＦＵＬＬ　ｗｉｄｔｈ １２３ ﾊﾝｶｸ",
    "“curly” ‘quotes’ and – dashes — …", "schÃ¶n Ã©tÃ© â€™s â€œquotedâ€\x9d", "Â£100 Â© voilÃ ", "price: $5.00 (50% off!) #tag @user", "http://example.com/a?b=c&d=e", "back\\slash /slash |pipe",
    "x" * 100, "word " * 200, "Ünïcödé " * 100, "a.b.c.d", "don't can't won't", "L'été d'Anna", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚", "\u0130\u0307 \u1e9b\u0323", "c\u0327 \u1100\u1161\u11a8", "\x1b[31mred\x1b[0m text",
    "‏right‎ left", "a photo of the number: \"7\".", "Ａ&Ｂ; ＆amp;", "&amp;lt;script&amp;gt;", "<b>&amp;</b> &eacute;", "\u2126 \u212b \ufb01", "e\u0301\u0301\u0301", "¿Qué? ¡Sí!", "Ĳssel ŉ",
]


def bytes_to_unicode():
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + i) for i in range(len(rest))]


def make(merges):
    alphabet = bytes_to_unicode()
    tokens = alphabet + [c + "</w>" for c in alphabet] + ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[tuple(pair) for pair in merges], model_max_length=77)


def learn(count):
    """The most frequent pair each time, the smaller text first among equals."""
    backend = make([]).backend_tokenizer
    words = collections.Counter()
    for line in CORPUS:
        normal = backend.normalizer.normalize_str(line)
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
    words = {tuple(word[:-1]) + (word[-1] + "</w>",): n for word, n in words.items()}
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        # Code points compare as UTF-8 does.
        best, n = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        if n < 2:
            break
        merges.append(best)
        joined = {}
        for word, n in words.items():
            out, i = [], 0
            while i < len(word):
                if word[i : i + 2] == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            joined[tuple(out)] = n
        words = joined
    return merges


def openai_clean(text):
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


def main(out):
    merges = learn(MERGES)
    folder = os.path.join(out, "tokenizer")
    make(merges).save_pretrained(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    lines = [dict(text=line, ids=tokenizer(line, truncation=True)["input_ids"], cleaned=openai_clean(line)) for line in LINES]
    golden = dict(corpus=CORPUS, merges=merges, lines=lines)
    text = json.dumps(golden, ensure_ascii=True, separators=(",", ":")).replace('},{"text"', '},\n{"text"')
    with open(os.path.join(out, "tokens.json"), "w") as file:
        file.write(text + "\n")


main(sys.argv[1])
