"""Reward, reflection and summary: pure functions over the model, no I/O.

General layout: `reward`, `reflection` and `summary` hold one formula family each; `completion` puts them together in
the order in which an ending needs them.
"""

from __future__ import annotations

from stepwell.learning.completion import analyse_completion as analyse_completion
