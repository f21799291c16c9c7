"""How updates are added up: exactly (`stack`), as factors (`fedit`), or so that a few bad updates cannot steer the result.

`stack` and `fedit` stream: their accumulator's size does not depend on how many updates went in. The robust ones keep them all.
"""
