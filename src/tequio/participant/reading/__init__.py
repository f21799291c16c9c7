"""Reading files as people have them: what a file is, its rows, and what the rows say.

`sources` lists the files, `streams` gives their bytes and characters, `opened` decides the format,
`tables`, `json_rows`, `parquet` and `xlsx` give rows, `shapes` turns rows into examples, and
`reader` joins these. Everything streams: no file is held whole. No message quotes a field.
"""
