"""English words that say nothing of what a text is about."""

from __future__ import annotations

# The English list of the Snowball project (snowballstem.org/algorithms/english/stop.txt), in its order, but for the
# words below it that such lists drop and that tell tasks apart: quantity, comparison, negation and direction.
_SNOWBALL = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its
itself they them their theirs themselves what which who whom this that these those am is are was were be been being have
has had having do does did doing would should could ought
im youre hes shes theyre ive youve weve theyve id youd hed shed wed theyd ill youll shell theyll isnt arent wasnt werent
hasnt havent hadnt doesnt dont didnt wont wouldnt shant shouldnt cant cannot couldnt mustnt lets thats whos whats heres
theres whens wheres whys hows
a an the and but if or because as until while of at by for with about into through during to from up down in out on off
again further then once here there when where why how so too very
"""
_KEPT = """
all any both each few more most other some such no nor not only own same than above below over under before after
between against
"""
# How people open and close what they ask of an agent, and the auxiliary verbs that the list above leaves out.
_POLITE = "hello hi hey dear please thank thanks can will shall may might us"

STOP_WORDS = frozenset((_SNOWBALL + _POLITE).split()) - frozenset(_KEPT.split())
