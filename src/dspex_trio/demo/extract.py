"""A tiny extractive reader: word overlap finds the sentence, the expected kind finds the span in it.

Nothing is known beforehand about any question. A sentence is worth the rare question words in it (a sentence that
begins with a pronoun inherits some from the one before); a span is worth its closeness to those words and how well its
surroundings fit the kind asked for.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dspex_trio.demo.words import STOPWORDS, Word, listed, same, sentences, words

MONTHS: Final = listed("january february march april may june july august september october november december")
_NUMBERS: Final = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
NUMBER_WORDS: Final = {word: number for number, word in enumerate(_NUMBERS.split())}
SCALES: Final = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_NEGATIONS: Final = listed("not no never none neither nor without")
_PRONOUNS: Final = listed("it its he his she her they their this these")
_JOINERS: Final = listed("of de la van von da di")
_COPULAS: Final = listed("is are was were")
_PLACE_PREPOSITIONS: Final = listed("in at on near from to into through")
YEAR_DIGITS: Final = 4
DAY_DIGITS: Final = 2
DATE_WORDS: Final = 4  # day, month, comma, year
NAME_WEIGHT: Final = 1.3
_INHERITED: Final = 0.8
ENOUGH: Final = 0.6
_PLACES: Final = "(?:cit(?:y|ies)|countr(?:y|ies)|(?:place|continent|river|ocean|town|island)s?)"
_MEASURE: Final = re.compile(r"^how (?:tall|high|long|deep|wide|far|old|fast|heavy|hot|cold|large|big|much)\b")


class AnswerKind(enum.Enum):
    """What kind of thing a question asks for."""

    PERSON = "a person"
    PLACE = "a place"
    DATE = "a date"
    YEAR = "a year"
    COUNT = "a number"
    MEASURE = "a measure"
    THING = "a thing"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A span that may answer a question.

    Attributes:
        text: The span.
        sentence: The sentence it stands in.
        kind: What the question asked for.
        score: How well it fits; only good for comparing answers to the same question.
        support: The share, 0 to 1, of the question's weight that the sentence carries.
    """

    text: str
    sentence: str
    kind: AnswerKind
    score: float
    support: float


def kind_of(question: str) -> AnswerKind:
    """What kind of thing the question asks for, by its question words."""
    text = question.lower().strip()
    for pattern, kind in (
        (r"^(?:\w+ )?(?:which|what) year\b", AnswerKind.YEAR),
        (r"^when\b|\b(?:what|which) (?:date|day)\b", AnswerKind.DATE),
        (r"^(?:by )?who(?:m|se)?\b", AnswerKind.PERSON),
        (r"^(?:to |from )?where\b", AnswerKind.PLACE),
        (rf"^(?:\w+ )?(?:which|what) {_PLACES}\b", AnswerKind.PLACE),
        (r"^how many\b|^what number\b", AnswerKind.COUNT),
    ):
        if re.search(pattern, text):
            return kind
    return AnswerKind.MEASURE if _MEASURE.search(text) else AnswerKind.THING


def answers(question: str, passages: str, kind: AnswerKind | None = None) -> list[Candidate]:
    """Every candidate span, best first; empty when no sentence shares a word with the question."""
    kind = kind or kind_of(question)
    asked = _asked(question)
    found = []
    for sentence, spelled, weights, met in _weighed(asked, passages):
        value, whole = sum(weights[each] * share for each, share in met.items()), sum(weights.values())
        if value:
            for span, fit in _spans(kind, question, spelled, asked, weights):
                text = sentence[spelled[span.start].start : spelled[span.stop - 1].end]
                found.append(Candidate(text, sentence, kind, value + fit, value / whole))
    return sorted(found, key=lambda answer: -answer.score)


def holds(question: str, passages: str) -> bool:
    """Whether one sentence says what a yes-or-no question asks.

    It must have every name of the question, most of the rest, and be negated as the question is.
    """
    asked = _asked(question)
    names = {word.stem for word in asked if word.text[0].isupper() and word.start > 0}
    for sentence, _, weights, met in _weighed(asked, passages):
        share = sum(weights[each] for each in met) / sum(weights.values())
        if names <= met.keys() and share >= ENOUGH and _negated(sentence) == _negated(question):
            return True
    return False


def number_in(text: str) -> float | None:
    """The first number of the text, in digits or as a word, with its scale (`8.1 million`); None without one."""
    spelled = words(text)
    for word, following in zip(spelled, [*spelled[1:], None], strict=True):
        value = float(word.text.replace(",", "")) if word.is_number else NUMBER_WORDS.get(word.text.lower())
        if value is not None:
            return value * SCALES.get(following.text.lower(), 1) if following is not None else value
    return None


def _asked(question: str) -> list[Word]:
    return list({word.stem: word for word in words(question) if word.carries}.values())


def _negated(text: str) -> bool:
    return sum(word.text.lower() in _NEGATIONS or word.text.endswith("n't") for word in words(text)) % 2 == 1


def _weighed(
    asked: Sequence[Word], passages: str
) -> Iterator[tuple[str, list[Word], dict[str, float], dict[str, float]]]:
    """Each sentence, its words, the weight of every question word, and the share in which the sentence has each."""
    split = [(sentence, words(sentence)) for sentence in sentences(passages)]
    weights = _weights(asked, [spelled for _, spelled in split])
    before: dict[str, float] = {}
    for sentence, spelled in split:
        met = {
            word.stem: 1.0 for word in asked if any(same(word.stem, other.stem) for other in spelled if other.is_word)
        }
        if spelled and spelled[0].text.lower() in _PRONOUNS:
            met = {stem: share * _INHERITED for stem, share in before.items()} | met
        before = met
        yield sentence, spelled, weights, met


def _weights(asked: Sequence[Word], split: Sequence[Sequence[Word]]) -> dict[str, float]:
    """How much meeting each question word says: the fewer sentences have it, the more; the words of one name share."""
    weights = {}
    for index, word in enumerate(asked):
        having = sum(any(same(word.stem, other.stem) for other in sentence) for sentence in split)
        weights[word.stem] = math.log(1 + (1 + len(split)) / (1 + having))
        if _named(word) or word.is_number:
            around = (asked[other] for other in (index - 1, index + 1) if 0 <= other < len(asked))
            parts = sum(
                _named(each) and min(abs(each.start - word.end), abs(word.start - each.end)) == 1 for each in around
            )
            weights[word.stem] *= NAME_WEIGHT / math.sqrt(1 + parts)
    return weights


def _spans(
    kind: AnswerKind, question: str, spelled: list[Word], asked: list[Word], weights: dict[str, float]
) -> Iterator[tuple[range, float]]:
    """The candidate spans of a sentence and how well each fits."""
    met = {
        index: word
        for index, other in enumerate(spelled)
        for word in asked
        if other.is_word and same(word.stem, other.stem)
    }
    for candidate in _candidates(kind, spelled):
        if not any(spelled[index].carries and index not in met for index in candidate):
            continue  # says nothing that the question did not say
        span = _trimmed(candidate, spelled, met) if kind is AnswerKind.THING else candidate
        closeness = sum(
            weights[word.stem] / (1 + min(abs(index - span.start), abs(index - span.stop + 1)))
            for index, word in met.items()
            if index not in span
        )
        yield span, closeness + _surroundings(kind, question, spelled, span, met)


def _candidates(kind: AnswerKind, spelled: list[Word]) -> Iterator[range]:
    if kind in (AnswerKind.PERSON, AnswerKind.PLACE):
        yield from _runs([_named(word) for word in spelled], [word.text in _JOINERS for word in spelled])
    elif kind in (AnswerKind.YEAR, AnswerKind.DATE):
        for index, word in enumerate(spelled):
            if _is_year(word):
                yield range(index, index + 1) if kind is AnswerKind.YEAR else _date(spelled, index)
    elif kind in (AnswerKind.COUNT, AnswerKind.MEASURE):
        yield from _quantities(kind, spelled)
    else:
        yield from _runs([word.carries for word in spelled], [False] * len(spelled))


def _runs(belongs: Sequence[bool], joins: Sequence[bool]) -> Iterator[range]:
    """Unbroken runs of words that belong; one joining word between two that belong does not break a run."""
    start: int | None = None
    for index in range(len(belongs) + 1):
        if index < len(belongs) and belongs[index]:
            start = index if start is None else start
        elif start is not None and not (index + 1 < len(belongs) and joins[index] and belongs[index + 1]):
            yield range(start, index)
            start = None


def _named(word: Word) -> bool:
    return word.text[0].isupper() and word.text.lower() not in STOPWORDS | MONTHS


def _is_year(word: Word) -> bool:
    return word.text.isdigit() and len(word.text) == YEAR_DIGITS


def _date(spelled: list[Word], year: int) -> range:
    """The date that ends in the year: `20 July 1969`, `July 1969`, `July 20, 1969`."""
    start = year
    while start > 0 and year - start < DATE_WORDS:
        before = spelled[start - 1]
        day = before.is_number and len(before.text) <= DAY_DIGITS
        if not (before.text.lower() in MONTHS or day or (before.text == "," and start == year)):
            break
        start -= 1
    return range(start, year + 1) if spelled[start].text != "," else range(year, year + 1)


def _quantities(kind: AnswerKind, spelled: list[Word]) -> Iterator[range]:
    """Numbers with their scale (`500 million`), and for a measure with their unit (`9 metres per second`)."""
    for index, word in enumerate(spelled):
        if not (word.is_number or word.text.lower() in NUMBER_WORDS):
            continue
        stop = index + 1
        while stop < len(spelled) and spelled[stop].text.lower() in SCALES:
            stop += 1
        if kind is AnswerKind.MEASURE and stop < len(spelled) and (spelled[stop].carries or spelled[stop].text in "%°"):
            stop += 1
            while stop + 1 < len(spelled) and spelled[stop].text in ("per", "of") and spelled[stop + 1].carries:
                stop += 2
        yield range(index, stop)


def _trimmed(span: range, spelled: Sequence[Word], met: Mapping[int, Word]) -> range:
    """The span without the question's own words at its ends, unless they are part of a name."""

    def spare(index: int) -> bool:
        name = spelled[index].text[0].isupper() and (index > 0 or met[index].text[0].isupper())
        return not name

    start, stop = span.start, span.stop
    while start < stop - 1 and start in met and spare(start):
        start += 1
    while stop > start + 1 and stop - 1 in met and spare(stop - 1):
        stop -= 1
    return range(start, stop)


def _surroundings(kind: AnswerKind, question: str, spelled: list[Word], span: range, met: Mapping[int, Word]) -> float:
    """What the span itself and the words around it say for it or against it."""
    before = [word.text.lower() for word in spelled[max(0, span.start - 2) : span.start]]
    after = [word.text.lower() for word in spelled[span.stop : span.stop + 2]]
    fit = -0.6 * sum(index in met for index in span)
    if span.start == 0 and min(met, default=0) >= span.stop:
        fit += 0.5  # the sentence's subject, of which it says what was asked
        fit += 0.4 * (after[:1] != [] and after[0] in _COPULAS)  # "Canberra is the capital"
    if any(word in _COPULAS for word in before) and max(met, default=len(spelled)) < span.start:
        fit += 0.8  # "The capital is Canberra"
    if kind is AnswerKind.PERSON:
        fit += 0.8 * (before[-1:] == ["by"]) + 0.3 * (len(span) > 1)
    elif kind is AnswerKind.PLACE:
        fit += 0.6 * any(word in _PLACE_PREPOSITIONS for word in before)
    elif kind in (AnswerKind.COUNT, AnswerKind.MEASURE):
        what = [word for word in words(question)[1:] if word.carries]
        near = spelled[span.stop - 1 : span.stop + 2]
        fit += 1.2 * any(same(word.stem, other.stem) for word in what for other in near if other.is_word)
        fit -= 1.0 * (_is_year(spelled[span.start]) and before[-1:] in (["in"], ["since"], ["of"]))
    return fit
