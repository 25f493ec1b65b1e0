"""Words of a text as stems, and how far a text holds a word. Pure."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

from llama_index_presets.ranking.bm25 import Analyzer

__all__ = ["SAME_BEGINNING", "Words", "apart", "fold", "held_by", "share_of", "tokens_of"]

SAME_BEGINNING: Final = 0.7
"""What a word counts that begins alike."""

_BEGINNING, _SHARED = 5, 0.6


class Words:
    """Tokens of a text, and the longer ones by their beginning."""

    __slots__ = ("_by_beginning", "tokens")

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = frozenset(tokens)
        self._by_beginning: dict[str, list[str]] | None = None

    def other_forms(self, word: str) -> frozenset[str]:
        """Tokens that begin as a word does: they share five letters and three fifths of the longer one."""
        if len(word) < _BEGINNING:
            return frozenset()
        if self._by_beginning is None:
            # sorted on demand: most texts are never asked for a word that they have not
            by_beginning: dict[str, list[str]] = {}
            for token in self.tokens:
                if len(token) >= _BEGINNING:
                    by_beginning.setdefault(token[:_BEGINNING], []).append(token)
            self._by_beginning = by_beginning
        near = self._by_beginning.get(word[:_BEGINNING], ())
        return frozenset(one for one in near if _beginning(word, one) / max(len(word), len(one)) >= _SHARED)


def fold(text: str) -> str:
    """The text without accents.

    Example:
        >>> fold("Thomas de Maizière")
        'Thomas de Maiziere'
    """
    if text.isascii():
        return text
    return "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))


_HUMP: Final = r"(?:[A-Z]{2,}(?=[A-Z][a-z]))?[A-Z][a-z]+"
_CAPITALS: Final = r"[A-Z]{2,}(?![A-Za-z])"
_HUMPS: Final = rf"(?:(?:{_HUMP})+(?:{_CAPITALS})?|{_CAPITALS})"
"""Words that begin with a capital, or are capitals. Reads each text in one way only: a text is anybody's, and one that
could be read in many would be tried in all of them."""
_IDENTIFIER: Final = re.compile(
    rf"(?<![^\W_])[^\W_]+(?:_+[^\W_]+)+|(?<!\w)(?:[a-z]{{2,}}{_HUMPS}(?!\w)|[A-Z][a-z]+{_HUMPS}(?=:\s))"
)
"""``payment_terms``, ``paymentTerms``, and ``PaymentTerms`` where a colon makes it the name of a column: elsewhere
capitals within a word are those of a brand."""
_SIGN_OF_ONE: Final = re.compile(r"_|[a-z][A-Z]")
_WORD_OF_ONE: Final = re.compile(r"[A-Z]?[^\W_A-Z]+|[^\W_]+")


def apart(text: str) -> str:
    """The text with the words of its identifiers apart, as people say them.

    Example:
        >>> apart("payment_terms: 30 days; shipTo: Kiel; PayPal"), apart("UnitPrice: 3; orderID: 7")
        ('payment terms: 30 days; ship To: Kiel; PayPal', 'Unit Price: 3; order ID: 7')
    """
    if not _SIGN_OF_ONE.search(text):  # most texts
        return text
    return _IDENTIFIER.sub(lambda found: " ".join(_WORD_OF_ONE.findall(found[0])), text)


def tokens_of(text: str, analyzer: Analyzer) -> list[str]:
    """Stems of a text without its accents; in English, irregular forms have the stem of their base.

    An identifier such as the column ``payment_terms`` is followed by its words: it is asked for by them.
    """
    bases, plain = _irregular_forms(analyzer), fold(text)
    if _SIGN_OF_ONE.search(plain):
        plain = _IDENTIFIER.sub(lambda found: f"{found[0]} {' '.join(_WORD_OF_ONE.findall(found[0]))}", plain)
    return [bases.get(token, token) for token in analyzer.tokens(plain)]


def held_by(word: str, words: Words) -> float:
    """1 where the word is there, 0.7 where one that begins alike is, else 0.

    Alike are words that share five letters and three fifths of the longer one: vaccine and vaccination, not bronchitis
    and bronchiectasis.
    """
    if word in words.tokens:
        return 1.0
    return SAME_BEGINNING if words.other_forms(word) else 0.0


def _beginning(one: str, other: str) -> int:
    """How many letters two words share before they part."""
    parted = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(parted, min(len(one), len(other)))


def share_of(wanted: frozenset[str], held: Words) -> float:
    """Share of the wanted words that are held; 1 where none is wanted."""
    return sum(held_by(word, held) for word in wanted) / len(wanted) if wanted else 1.0


_FORMS: Final = (
    "become became; begin began begun; bend bent; bite bit bitten; blow blew blown; break broke broken; bring "
    "brought; build built; buy bought; catch caught; choose chose chosen; come came; deal dealt; dig dug; draw drew "
    "drawn; drink drank drunk; drive drove driven; eat ate eaten; fall fell fallen; feed fed; feel felt; fight "
    "fought; flee fled; fly flew flown; forget forgot forgotten; freeze froze frozen; give gave given; go went "
    "gone; grow grew grown; hang hung; hear heard; hide hid hidden; hold held; keep kept; know knew known; lead "
    "led; lend lent; lose lost; make made; mean meant; meet met; pay paid; ride rode ridden; rise rose risen; run "
    "ran; say said; seek sought; sell sold; send sent; shake shook shaken; shoot shot; sing sang sung; sink sank "
    "sunk; sit sat; sleep slept; speak spoke spoken; spend spent; stand stood; steal stole stolen; stick stuck; "
    "strike struck; swim swam; take took taken; teach taught; tell told; think thought; throw threw thrown; "
    "understand understood; wake woke woken; wear wore worn; weave wove woven; win won; withdraw withdrew "
    "withdrawn; write wrote written; child children; man men; woman women; foot feet; tooth teeth; goose geese; "
    "mouse mice; wife wives; knife knives; leaf leaves; half halves; thief thieves; wolf wolves; die dead death; "
    "live life lives; high height; long length; wide width; deep depth; strong strength; lose loss; sell sale; grow "
    "growth; choose choice; speak speech; believe belief; destroy destruction; bear born birth; prove proof; marry "
    "marriage; hot heat; arrive arrival; weigh weight; cure curable; treat treatable; wash washable; use usable"
)
"""The base first. Forms that are words of their own, such as found, left and saw, are not here."""


@functools.cache
def _irregular_forms(analyzer: Analyzer) -> Mapping[str, str]:
    """Stem of each irregular form to the stem of its base; none in another language than English.

    Example:
        >>> forms = _irregular_forms(Analyzer())
        >>> forms["lost"], forms["children"]
        ('lose', 'child')
    """
    if analyzer.language != "english":
        return {}
    stems = [[token for form in row.split() for token in analyzer.tokens(form)] for row in _FORMS.split(";")]
    return {form: base for base, *forms in stems for form in forms}
