"""Text taken apart into words, folded so that spelling that means the same is the same."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")
# And what says no more than how the character before it is drawn: variation selectors, keycaps.
_ACCENTS = re.compile("[\u0300-\u036f\u20e3\ufe00-\ufe0f]+")
# Scripts some of whose letters carry marks that no normal form joins to them. To a pattern, marks are no letters.
_MAY_HAVE_MARKS = re.compile("[\u0483-\u0489\u0590-\u1fff\u20d0-\u20ff\ua66f-\uabff\ufb1e\U00010000-\U0010ffff]")
_APOSTROPHE = re.compile(r"(?<=[^\W_])['’](?=[^\W_])")
# Han, kana and Thai put no blanks between words. Pairs of neighbouring characters stand in for words there: the usual
# way without a dictionary.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def fold(text: str) -> str:
    """Without case, accents and compatibility forms: `Ｃafé` is `cafe`, `Straße` is `strasse`.

    Marks are dropped from Latin, Greek and Cyrillic letters only; in other scripts they are vowels.
    """
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFKC", _ACCENTS.sub("", decomposed)).casefold()


def words(text: str) -> list[str]:
    """The words of a text in order, folded. Any text is taken; one without letters and digits has none.

    A word is a run of letters, digits and the marks on them. An apostrophe inside a word joins it (`don't` is `dont`);
    everything else parts words, so `file_reader`, `db:world_1` and `HTTP/2` give their pieces. Scripts without blanks
    give pairs of neighbouring characters.
    """
    folded = fold(text)
    if "'" in folded or "’" in folded:
        folded = _APOSTROPHE.sub("", folded)
    if folded.isascii():
        return _WORD.findall(folded)
    if _MAY_HAVE_MARKS.search(folded) is None:
        found = _WORD.findall(folded)
    else:
        found = "".join(character if _is_of_a_word(character) else " " for character in folded).split()
    return [piece for word in found for piece in _pieces(word)]


def _is_of_a_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def _pieces(word: str) -> list[str]:
    if _UNSPACED.search(word) is None:
        return [word]
    pieces: list[str] = []
    end = 0
    for run in _UNSPACED.finditer(word):
        pieces += [word[end : run.start()]] if run.start() > end else []
        characters = run.group()
        pieces += [characters[at : at + 2] for at in range(max(1, len(characters) - 1))]
        end = run.end()
    return pieces + ([word[end:]] if end < len(word) else [])
