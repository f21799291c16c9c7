"""Guess the language of texts by their commonest words:

English, Spanish, Portuguese, French, German, Italian.

It says nothing rather than something doubtful: another language, or too few words, gives None.
"""

import re
from collections import Counter
from collections.abc import Iterable

COMMON = {
    "English": "the and is of to was for this with that are you have not it be at my they were from",
    "Spanish": "el los las que y del por con una para es muy pero como no lo está fue todo más",
    "Portuguese": "os as que do da não uma com para é muito mas em dos ao foi isso você está mais",
    "French": "le les des et est une que pour dans pas avec sur mais très qui au ce je nous était",
    "German": "der die das und ist nicht ein eine mit für auf den sehr aber ich es zu dem war von",
    "Italian": "il che di è non un una per con molto ma gli della sono anche questo mi ho nel più",
}
WORDS = {language: frozenset(words.split()) for language, words in COMMON.items()}
ENOUGH = 100  # words
SHARE = 0.12  # of all words, that of the commonest ones at least
LEAD = 1.5  # times the next language


def language_of(texts: Iterable[str]) -> str | None:
    """Return the language that the commonest words clearly show, or None."""
    hits: Counter[str] = Counter()
    total = 0
    for text in texts:
        for word in re.findall(r"[^\W\d_]+", text.casefold()):
            total += 1
            hits.update(language for language, words in WORDS.items() if word in words)
    if total < ENOUGH or not hits:
        return None
    (first, most), *rest = hits.most_common(2)
    next_most = rest[0][1] if rest else 0
    return first if most >= SHARE * total and most >= LEAD * next_most else None
