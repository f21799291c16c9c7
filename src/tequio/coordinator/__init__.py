"""The round: plan, dispatch, admit, reduce, mix with the centre, step, gate, record.

Functions from state to state.

Knows participants only through the runtime it is given; knows nothing of models or data.
"""
