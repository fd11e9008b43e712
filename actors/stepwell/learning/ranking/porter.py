"""Porter's stemmer: `connected`, `connecting` and `connections` become `connect`.

M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, with the two departures of the author's own
later programs (`bli` → `ble`, `logi` → `log`). The names of the steps are those of the paper. It is the algorithm that
SQLite's full text calls `porter`; the tests hold it against that one.
"""

from __future__ import annotations

import re

_SHORTEST, _LONGEST = 3, 64
_WORD = re.compile("[a-z]+")

_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
]  # fmt: skip


def _longest_first(endings: list[str]) -> re.Pattern[str]:
    return re.compile(f"({'|'.join(sorted(endings, key=len, reverse=True))})$")


_ENDING_2, _ENDING_3 = _longest_first(list(_STEP_2)), _longest_first(list(_STEP_3))
_ENDING_4 = _longest_first(_STEP_4)


def stem(word: str) -> str:
    """The stem of an English word in small letters. Anything else (digits, other scripts, very short or very long
    words) is given back as it is."""
    if not _SHORTEST <= len(word) <= _LONGEST or _WORD.fullmatch(word) is None:
        return word
    word = _step_1c(_step_1b(_step_1a(word)))
    word = _replaced(word, _ENDING_2, _STEP_2)
    word = _replaced(word, _ENDING_3, _STEP_3)
    return _step_5(_step_4(word))


def _forms(word: str) -> str:
    """The word with `v` for each vowel and `c` for each consonant; a `y` behind a consonant is a vowel."""
    forms = ""
    for letter in word:
        is_vowel = letter in "aeiou" or (letter == "y" and forms.endswith("c"))
        forms += "v" if is_vowel else "c"
    return forms


def _measure(stem: str) -> int:
    """m in [C](VC)^m[V]: how often a consonant follows a vowel."""
    return _forms(stem).count("vc")


def _has_vowel(stem: str) -> bool:
    return "v" in _forms(stem)


def _doubles(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _forms(word)[-1] == "c"


def _ends_cvc(word: str) -> bool:
    return _forms(word).endswith("cvc") and word[-1] not in "wxy"


def _step_1a(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word if word.endswith("ss") or not word.endswith("s") else word[:-1]


def _step_1b(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for ending in ("ed", "ing"):
        if word.endswith(ending):
            stem = word[: -len(ending)]
            return _mended(stem) if _has_vowel(stem) else word
    return word


def _mended(stem: str) -> str:
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if _doubles(stem) and stem[-1] not in "lsz":
        return stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _ends_cvc(stem) else stem


def _step_1c(word: str) -> str:
    return word[:-1] + "i" if word.endswith("y") and _has_vowel(word[:-1]) else word


def _replaced(word: str, ending: re.Pattern[str], replacements: dict[str, str]) -> str:
    """Steps 2 and 3: the longest ending that fits is replaced, if a measure is left before it."""
    found = ending.search(word)
    if found is None or _measure(word[: found.start()]) == 0:
        return word
    return word[: found.start()] + replacements[found.group()]


def _step_4(word: str) -> str:
    found = _ENDING_4.search(word)
    if found is None:
        return word
    stem = word[: found.start()]
    if _measure(stem) < 2 or (found.group() == "ion" and not stem.endswith(("s", "t"))):
        return word
    return stem


def _step_5(word: str) -> str:
    if word.endswith("e"):
        stem = word[:-1]
        measure = _measure(stem)
        if measure > 1 or (measure == 1 and not _ends_cvc(stem)):
            word = stem
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word
