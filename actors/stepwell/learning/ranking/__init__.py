"""Lexical ranking: which texts are about what a query asks. Pure functions, no model, no I/O.

General layout: `words` takes text apart, `stop_words` says which words tell nothing, `porter` takes off endings, and
`analysis` puts them together: text in, terms out. `bm25` scores terms, `fusion` joins scores of different kinds,
`diversity` picks results that do not repeat each other. What is indexed and what is asked must go through the same
`analyse`; whatever stores terms stores `ANALYSIS_VERSION` with them.
"""

from __future__ import annotations

from stepwell.learning.ranking.analysis import ANALYSIS_VERSION as ANALYSIS_VERSION
from stepwell.learning.ranking.analysis import analyse as analyse
from stepwell.learning.ranking.analysis import spelled as spelled
from stepwell.learning.ranking.bm25 import Bm25 as Bm25
from stepwell.learning.ranking.bm25 import CorpusStatistics as CorpusStatistics
from stepwell.learning.ranking.bm25 import TermScore as TermScore
from stepwell.learning.ranking.bm25 import rank_texts as rank_texts
from stepwell.learning.ranking.diversity import diversify as diversify
from stepwell.learning.ranking.diversity import overlap as overlap
from stepwell.learning.ranking.fusion import fuse as fuse
from stepwell.learning.ranking.porter import stem as stem
from stepwell.learning.ranking.words import words as words
