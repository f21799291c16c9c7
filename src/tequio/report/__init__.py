"""The report of a run: one offline HTML file in English or Spanish, from the ledger's records
alone.

`data` holds the numbers, `html` the page and its figures; the words are in `tequio.core.texts`.
"""
