"""The code beside the private data: reader, base model, local loop, personal model.

Nothing here knows the coordinator. Only a `Reply` leaves: an update and means, never a text, a
label or a sample.
"""
