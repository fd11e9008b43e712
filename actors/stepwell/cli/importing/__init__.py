"""`stepwell import`: files of the neutral form into a memory, twice or after a kill the same as once.

Every event is either stored already or appended behind what is stored: while the events of an episode in the file
equal those in the memory, one after another, nothing is written; the first new one starts the writing. Nothing else is
remembered between two imports, so nothing can disagree with the log.

General layout: `command` is what the command line calls, `importer` reads files and hands every episode its events,
`episode_writing` stores them, `report` counts and keeps what was refused.
"""
