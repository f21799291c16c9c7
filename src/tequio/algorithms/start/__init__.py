"""Ways to start a round from the folded shared model (layout product).

A participant starts with fresh factors, or the best ones of the shared model (FedEx, FlexLoRA).
`begin(shared, rank)` returns the part that it holds frozen, and the factors that it trains.
"""
