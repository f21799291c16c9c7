"""The server's step: plain (FedAvg), with heavy-ball or Nesterov momentum (DiLoCo), or adaptive
(Adam, Yogi).

`apply(memory, change)` returns the new memory and the step to add to the shared model; change is in
descent direction.
"""
