"""Secure sums (Bonawitz et al., CCS 2017): the coordinator learns a sum and none of its parts.

`plan` derives which sum is meant, `participant` and `coordinator` are the two sides, bytes to
bytes.
"""
