"""What a local step minimises besides the participant's own loss (terms), and where its gradient is
taken (methods).

A term is a pure function of one step to a scalar that is added to the loss: autograd does the rest.
A file each; see core/protocols.py.
"""
