"""The report of a run: one offline HTML file in English or Spanish, from the ledger's records alone.

`summary.py` holds the numbers, `words.toml` the text, `charts.py` the figures, `report.py` the page.
"""
