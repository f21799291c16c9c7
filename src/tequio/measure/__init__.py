"""What a run cost and whom it helped: energy.py meters electricity and says how it knows, site.py
adds carbon (intensity.py, importers.py)
and money (money.py) of where it was drawn, statistics.py holds the bootstrap and the measures of
equity. Readings and numbers only.
"""
