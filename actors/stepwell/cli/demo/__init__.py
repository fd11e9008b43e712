"""`stepwell demo`: a fleet of agents, a kill -9, and nothing that was acknowledged is lost.

General layout: `tools` are the tools the agents call, `programs` the audits they run with them, `plan` gives every
agent its module of the standard library, `agent` runs one of them on a memory, `fleet` is the process that is killed,
`ledger` compares what it acknowledged with what the log holds, `crash` starts and kills it, `story` tells it all.
"""
