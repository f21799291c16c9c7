"""How participants start a round from the folded shared model (layout product): fresh factors, or
its own best ones (FedEx, FlexLoRA).

`begin(shared, rank)` returns what a participant of that rank holds frozen and the factors that it
goes on with.
"""
