"""Irregular forms of English verbs and nouns, and nouns made of either, that no stemmer brings together."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

from llama_index_presets.ranking.bm25 import Analyzer

__all__ = ["irregular_forms"]

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
def irregular_forms(analyzer: Analyzer) -> Mapping[str, str]:
    """Stem of each irregular form to the stem of its base; none in another language than English.

    Example:
        >>> forms = irregular_forms(Analyzer())
        >>> forms["lost"], forms["children"]
        ('lose', 'child')
    """
    if analyzer.language != "english":
        return {}
    stems = [[token for form in row.split() for token in analyzer.tokens(form)] for row in _FORMS.split(";")]
    return {form: base for base, *forms in stems for form in forms}
