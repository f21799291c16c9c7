"""Who is who: certificates of a federation, keys of participants, invitations; and secure sums.

The only folder that knows `cryptography`.

State in, files out; secrets are written readable by their owner alone, and are never printed,
logged or recorded.
"""
