"""The report as one page of HTML: its parts, charts and style.

Rows come from `report.data`, words from `texts.words`.
"""
