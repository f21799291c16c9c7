"""The first hour: look at files as people have them (`shape`, `survey`), propose a federation
for this
machine (`proposal`), write it (`prepare`), and check the machine (`doctor`).
"""
