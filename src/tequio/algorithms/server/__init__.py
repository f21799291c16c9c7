"""The server's step: plain (FedAvg), or with heavy-ball or Nesterov momentum (DiLoCo).

`apply(memory, change)` returns the new memory and the step to add to the shared model; change is in descent direction.
"""
