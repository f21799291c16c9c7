"""Real worlds for the study: public texts of several sites, each fetched, split, and written as a
federation.

One file a world, with `prepare(cache, seed) -> RealWorld`; `catalogue` names them all and writes a
world for `tequio run`. `python -m benchmarks.study.worlds NAME --seed 0` shows the sizes and
licences of one.
"""
