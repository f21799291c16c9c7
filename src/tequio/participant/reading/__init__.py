"""Reading files as people have them:

`opened` finds the format, `tables`, `json_rows`, `parquet` and `xlsx` give rows,
`shapes` turns rows into examples, and `reader` joins these. Everything streams, and no message
quotes a field.
"""
