"""Words, stems and sentences of plain English text, with where they stand in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


def listed(text: str) -> frozenset[str]:
    """A set of words, written as one text."""
    return frozenset(text.split())


STOPWORDS: Final = listed(
    "a an the this that these those it its he she they him her his their them we you i who whom whose what "
    "which when where why how is are was were be been being am do does did done has have had having will "
    "would can could may might must shall should of in on at by to from with for into onto as and or but not "
    "no nor so than then there here also very about after before between during over under through only most "
    "more much many some any each every all both other such own same if because while until out up down off "
    "one's s"
)
IRREGULAR: Final = {
    "wrote": "write", "written": "write", "built": "build", "won": "win", "began": "begin", "begun": "begin",
    "led": "lead", "became": "become", "grew": "grow", "grown": "grow", "flew": "fly", "flown": "fly",
    "sank": "sink", "sunk": "sink", "made": "make", "took": "take", "taken": "take", "gave": "give",
    "given": "give", "drew": "draw", "drawn": "draw", "fell": "fall", "fallen": "fall", "held": "hold",
    "kept": "keep", "ran": "run", "sang": "sing", "sung": "sing", "spoke": "speak", "spoken": "speak",
    "stood": "stand", "taught": "teach", "told": "tell", "thought": "think", "wore": "wear", "worn": "wear",
    "ate": "eat", "eaten": "eat", "fought": "fight", "found": "find", "felt": "feel", "died": "die", "dies": "die",
    "lay": "lie", "lies": "lie", "lain": "lie", "born": "bear", "bore": "bear", "height": "high", "length": "long",
    "depth": "deep", "width": "wide", "age": "old", "population": "inhabit", "people": "inhabit", "men": "man",
    "women": "woman", "children": "child", "feet": "foot", "tall": "high",
}  # fmt: skip
_WORD = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+(?:['’.-][^\W\d_]+)*|[^\w\s]")  # noqa: RUF001 - a real apostrophe
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(]*[A-Z0-9])|\n\s*\n")  # noqa: RUF001 - real quotes
_ABBREVIATION = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|St|Mt|c|ca|e\.g|i\.e|No|vs|[A-Z])\.$")


@dataclass(frozen=True, slots=True)
class Word:
    """A word, a number or a punctuation mark, where it stands, and its stem."""

    text: str
    start: int
    end: int
    stem: str

    @property
    def is_word(self) -> bool:
        """Whether it is more than punctuation."""
        return self.text[0].isalnum()

    @property
    def is_number(self) -> bool:
        """Whether it is written in digits."""
        return self.text[0].isdigit()

    @property
    def carries(self) -> bool:
        """Whether it carries meaning: neither punctuation nor a stopword."""
        return self.is_word and self.text.lower() not in STOPWORDS


def words(text: str) -> list[Word]:
    """Every word and mark of `text`, in order."""
    return [Word(found[0], found.start(), found.end(), stem(found[0])) for found in _WORD.finditer(text)]


def count_tokens(text: str) -> int:
    """How long the text is for this model: its words and marks."""
    return sum(1 for _ in _WORD.finditer(text))


def cut_tokens(text: str, most: int) -> str:
    """The first `most` tokens of the text, spelled as they are."""
    end = 0
    for index, found in enumerate(_WORD.finditer(text)):
        if index == most:
            return text[:end]
        end = found.end()
    return text


def pieces(text: str) -> list[str]:
    """The text as tokens, each with the space before it; together they are the text."""
    ends = [found.end() for found in _WORD.finditer(text)]
    starts = [0, *ends]
    return [text[start:end] for start, end in zip(starts, [*ends, len(text)], strict=True) if end > start]


def stem(word: str) -> str:
    """The word without its common English endings, so that `invented` meets `invents`."""
    word = word.lower().replace("’", "'").removesuffix("'s")  # noqa: RUF001 - a real apostrophe
    word = IRREGULAR.get(word, word)
    for ending, left, instead in (
        ("ies", 2, "y"), ("sses", 2, "ss"), ("ing", 3, ""), ("ied", 2, "y"), ("ed", 3, ""), ("es", 3, ""), ("s", 3, ""),
    ):  # fmt: skip
        if word.endswith(ending) and len(word) - len(ending) >= left and not word.endswith("ss"):
            word = word[: -len(ending)] + instead
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":  # noqa: PLR2004 - "running" has "runn"
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word  # noqa: PLR2004 - "see" stays


def same(one: str, other: str) -> bool:
    """Whether two stems mean the same word: equal, or alike but for a short ending (`invent`, `inventor`)."""
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    return len(short) >= 5 and long.startswith(short) and len(long) - len(short) <= 4  # noqa: PLR2004 - a suffix's length


def sentences(text: str) -> list[str]:
    """The sentences of `text`, without the space around them."""
    found, start = [], 0
    for gap in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[start : gap.start()]):
            found.append(text[start : gap.start()])
            start = gap.end()
    return [sentence.strip() for sentence in [*found, text[start:]] if sentence.strip()]
