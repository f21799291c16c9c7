"""The report of a run: one offline HTML file in English or Spanish, from the ledger's records alone.

`data` holds the numbers, `text.toml` the words in each language, `html` the page and its figures.
"""
