"""Finding facts by words, without a model: an index in memory, and how it ranks.

settings    the numbers, and where each comes from
word_forms  irregular verbs and plurals, which no stemmer knows
dates       dates of every common form as the words that people ask with
passage     what of a fact is searched, and which conversation it is part of
postings    the inverted index
ranking     the score of a fact from its words, its neighbours and its conversation
fusion      words and vectors together
index       all of it for the facts of one scope
"""
