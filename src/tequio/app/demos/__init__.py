"""Real data and models for the demos: fetched at run time from packages into a cache, never
vendored.

Each of `sentiment`, `manuals` and `heart` has `prepare(cache, seed) -> DemoData`: natural
participants, a public centre, public slices, and the licence and sha256 of everything that was
used.
"""
