"""One-way gradient transfer, the coordinator's half (Augenstein et al., arXiv 2205.13655): ask the centre for its gradient."""

from __future__ import annotations

from tequio.coordinator.run_spec import RunSpec
from tequio.core.errors import RunError
from tequio.core.protocols import Runtime
from tequio.core.seeds import derive
from tequio.core.types import Failure, GradientRequest
from tequio.core.update import Update


def central_gradient(round_: int, held: Update, run_spec: RunSpec, runtime: Runtime) -> Update | None:
    """Gradient of the centre's public loss at base + `held`, at most `broadcast_rank` ranks, over as many batches as it makes steps.

    None where no term needs it. Raises RunError where it cannot be had: without it the round would minimise something else.
    """
    if run_spec.centre is None or not run_spec.local.needs("gradient"):
        return None
    centre = run_spec.centre
    seed = derive(run_spec.seed, "gradient", round_)
    task = GradientRequest(round_, centre.index, centre.name, held, run_spec.broadcast_rank, centre.steps, seed)
    problem = "no reply"
    for reply in runtime.exchange([task]):
        if isinstance(reply, Failure):
            problem = f"{reply.error}: {reply.message}"
        elif reply.update is not None and (reply.round, reply.index) == (round_, centre.index):
            problem = _misfit(reply.update, run_spec)
            if not problem:
                return reply.update
    what = f"Round {round_}: there is no gradient of the centre for the term transfer."
    raise RunError(what, problem, "Mend that and resume.")


def _misfit(gradient: Update, run_spec: RunSpec) -> str:
    expected = {name: tuple(shape) for name, shape in {**run_spec.shapes, **run_spec.head_shapes}.items()}
    if gradient.spec != run_spec.spec:
        return "it belongs to another base model or adapter layout"
    if {name: tuple(entry.shape) for name, entry in gradient.entries.items()} != expected:
        return "its entries differ from the layout"
    return "" if gradient.is_finite() else "it holds NaN or infinite numbers"
