"""How many bytes a round may take at most, known before it begins: ranks, layout and codecs say it, whatever the numbers will be."""

from __future__ import annotations

from tequio.algorithms.compress._bounds import shapes_of, upload_most
from tequio.algorithms.compress._container import announced
from tequio.algorithms.compress.plain import Plain
from tequio.algorithms.factors import parted, prefix
from tequio.coordinator.run_spec import Member, Plan
from tequio.core.canonical import size_of
from tequio.core.types import State


def round_most(state: State, plan: Plan) -> int:
    """Bytes up and down that participants' rows of the next round can have together: of its roster, and of what is on its way. (The
    centre is where the coordinator is.)"""
    down = broadcast_most(state, plan) + 2 * task_most(state, plan)  # buffered rounds: sent before, and with the step
    flying = sum(int(f.row["bytes_up"]) + int(f.row.get("bytes_down", 0)) + down for f in state.flights if f.index)
    away = {flight.index for flight in state.flights}
    idle = [member for member in plan.roster(state.round + 1) if member.index and member.index not in away]
    return flying + sum(_upload_most(state, plan, member) + down for member in idle)


def _upload_most(state: State, plan: Plan, member: Member) -> int:
    moves = None
    if plan.aggregator.layout != "product":
        moves = parted(prefix(state.shared, member.rank), plan.trained(state))[0].entries
    rank = 2 * member.rank if plan.start.continues else member.rank
    return upload_most(plan.upload.codec(), plan.spec, plan.shapes, plan.head_shapes, plan.full, rank, moves)


def broadcast_most(state: State, plan: Plan) -> int:
    """The step that goes to everybody: as factors, or whole where the rank allows it."""
    codec, heads = plan.download.codec(), plan.head_shapes
    if plan.aggregator.layout != "product":
        return codec.most(announced({**shapes_of(state.shared.entries), **heads}), plan.spec)
    small = {name: shape for name, shape in plan.shapes.items() if min(shape) <= plan.broadcast_rank}
    large = {name: shape for name, shape in plan.shapes.items() if name not in small}
    whole = codec.most(announced({**heads, **small}, large, plan.broadcast_rank), plan.spec)
    if plan.full:
        return whole
    return max(whole, codec.most(announced(heads, plan.shapes, plan.broadcast_rank), plan.spec))


def task_most(state: State, plan: Plan) -> int:
    """What goes down with a task: the whole model to who is drawn now and then or begins late, and the centre's gradient."""
    late = plan.centre_first and state.round == plan.centre_first
    model = size_of(state.shared) if plan.cohort is not None or late else 0
    if plan.centre is None or not plan.local.needs("gradient"):
        return model
    return model + Plain().most(announced(plan.head_shapes, plan.shapes, plan.broadcast_rank), plan.spec)
