"""Reward, reflection and summary: pure functions over the model, no I/O.

General layout: `reward`, `reflection` and `summary` hold one formula family each; `completion` puts them together in
the order in which an ending needs them. The three lists of a reflection are in `successes`, `improvements` and
`insights`. Below them: `facts` counts what the steps of an episode show, `figures` reads numbers that may be garbage,
`text` makes short readable lines of text that may be anything.
"""

from __future__ import annotations

from stepwell.learning.completion import analyse_completion as analyse_completion
