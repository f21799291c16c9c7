"""What runs where the private data are: reading data, holding the base model, the local loop, the
personal model.

Nothing here knows the coordinator. What leaves is a `Reply`: an update and means, never a text, a
label or a sample.
"""
