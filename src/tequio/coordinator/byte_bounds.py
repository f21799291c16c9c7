"""How many bytes a round may take at most, known before it begins: ranks, layout and codecs say it,
whatever the numbers will be.
"""

from tequio.algorithms.compress._bounds import entry_shapes, upload_most
from tequio.algorithms.compress._container import announced
from tequio.algorithms.compress.plain import Plain
from tequio.algorithms.factors import parted, prefix
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.core.canonical import packed_update_size
from tequio.core.types import State


def round_most(state: State, run_spec: RunSpec) -> int:
    """Bytes up and down that participants' rows of the next round can have together: of its roster,
    and of what is on its way.

    (The
    centre is where the coordinator is.)"""
    down = broadcast_most(state, run_spec) + 2 * task_most(
        state, run_spec
    )  # buffered rounds: sent before, and with the step
    flying = sum(
        int(f.row["bytes_up"]) + int(f.row.get("bytes_down", 0)) + down
        for f in state.flights
        if f.index
    )
    away = {flight.index for flight in state.flights}
    idle = [
        member
        for member in run_spec.roster(state.round + 1)
        if member.index and member.index not in away
    ]
    return flying + sum(_upload_most(state, run_spec, member) + down for member in idle)


def _upload_most(state: State, run_spec: RunSpec, member: Member) -> int:
    moves = None
    if run_spec.aggregator.layout != "product":
        moves = parted(prefix(state.shared, member.rank), run_spec.trained(state))[0].entries
    rank = 2 * member.rank if run_spec.start.continues else member.rank
    return upload_most(
        run_spec.upload.codec,
        run_spec.spec,
        run_spec.shapes,
        run_spec.head_shapes,
        run_spec.full,
        rank,
        moves,
    )


def broadcast_most(state: State, run_spec: RunSpec) -> int:
    """The step that goes to everybody: as factors, or whole where the rank allows it."""
    codec, heads = run_spec.download.codec, run_spec.head_shapes
    if run_spec.aggregator.layout != "product":
        return codec.most(announced({**entry_shapes(state.shared.entries), **heads}), run_spec.spec)
    small = {
        name: shape
        for name, shape in run_spec.shapes.items()
        if min(shape) <= run_spec.broadcast_rank
    }
    large = {name: shape for name, shape in run_spec.shapes.items() if name not in small}
    whole = codec.most(announced({**heads, **small}, large, run_spec.broadcast_rank), run_spec.spec)
    if run_spec.full:
        return whole
    return max(
        whole, codec.most(announced(heads, run_spec.shapes, run_spec.broadcast_rank), run_spec.spec)
    )


def task_most(state: State, run_spec: RunSpec) -> int:
    """What goes down with a task: the whole model to who is drawn now and then or begins late, and
    the centre's gradient.
    """
    late = run_spec.centre_first and state.round == run_spec.centre_first
    model = packed_update_size(state.shared) if run_spec.cohort is not None or late else 0
    if run_spec.centre is None or not run_spec.local.needs("gradient"):
        return model
    return model + Plain().most(
        announced(run_spec.head_shapes, run_spec.shapes, run_spec.broadcast_rank), run_spec.spec
    )
