"""Sums that nobody sees the parts of: Bonawitz et al. (CCS 2017) over a complete graph, with fresh secrets in every sum.

`agreement` says what all members agree on, `participant` and `coordinator` are the two state machines, bytes in and bytes out.
The coordinator is taken to follow the protocol (`honest`), and up to `colluders` members to tell it all they know.
"""
