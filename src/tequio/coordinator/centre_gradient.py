"""One-way gradient transfer, the coordinator's half (Augenstein et al., arXiv 2205.13655): ask the
centre for its gradient.
"""

from tequio.coordinator.evaluation import failure_reason
from tequio.coordinator.run_spec import RunSpec
from tequio.core.errors import RunError
from tequio.core.protocols import Runtime
from tequio.core.reason import Reason
from tequio.core.seeds import derive
from tequio.core.texts.words import refusal
from tequio.core.types import Failure, GradientRequest
from tequio.core.update import Update


def central_gradient(
    round_: int, held: Update, run_spec: RunSpec, runtime: Runtime
) -> Update | None:
    """Gradient of the centre's public loss at base + `held`, at most `broadcast_rank` ranks, over
    as many batches as it makes steps.

    None where no term needs it. Raises RunError where it cannot be had: without it the round would
    minimise something else.
    """
    if run_spec.centre is None or not run_spec.local.needs("gradient"):
        return None
    centre = run_spec.centre
    seed = derive(run_spec.seed, "gradient", round_)
    task = GradientRequest(
        round_, centre.index, centre.name, held, run_spec.broadcast_rank, centre.steps, seed
    )
    problem: Reason | None = Reason("no-reply")
    for reply in runtime.exchange([task]):
        if isinstance(reply, Failure):
            problem = failure_reason(reply)
        elif reply.update is not None and (reply.round, reply.index) == (round_, centre.index):
            problem = _misfit(reply.update, run_spec)
            if problem is None:
                return reply.update
    raise refusal(RunError, "no-centre-gradient", round=round_, why=problem and problem.as_record())


def _misfit(gradient: Update, run_spec: RunSpec) -> Reason | None:
    expected = {
        name: tuple(shape) for name, shape in {**run_spec.shapes, **run_spec.head_shapes}.items()
    }
    same = {name: tuple(entry.shape) for name, entry in gradient.entries.items()} == expected
    if gradient.spec != run_spec.spec or not same:
        return Reason("other-layout")
    return None if gradient.is_finite() else Reason("not-finite")
