"""What an episode, a step, an outcome and an event *are*: plain data, and its checked way into and out of bytes.

General layout: `step`, `outcome`, `context`, `analysis`, `episode`, `event` hold the types; `limits` and `validation`
guard the door; `codec`, `start`, `ending` turn records into bytes and back; `fold` builds an episode from its records.
"""
