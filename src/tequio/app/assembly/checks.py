"""Check a configuration as a whole: which pieces go together, whose carbon is counted, which models
can teach one another.
"""

from collections.abc import Sequence
from dataclasses import replace

from tequio.algorithms.compatibility import check_bound, check_votes
from tequio.app.assembly.algorithm import Algorithm, resolve_algorithm
from tequio.app.assembly.masked import check_masked
from tequio.app.assembly.setup import RunSetup, class_count
from tequio.app.assembly.topology import build_peers
from tequio.config import Federation, ParticipantFile
from tequio.coordinator.distillation import Distillation
from tequio.core.errors import ConfigError, ResourceError
from tequio.core.texts.words import refusal
from tequio.participant.text_tasks import Causal
from tequio.planning.memory import available_bytes

PREDICTION_BYTES = (
    16  # a prediction: logits, the term of one model, the sum, and the teacher, float32
)


def check_tells_carbon(who: str, file: ParticipantFile) -> None:
    """Raise ConfigError where a federation's carbon budget could not count this participant."""
    placed = file.energy.country is not None or file.energy.intensity is not None
    if not placed or not file.energy.tell:
        raise refusal(ConfigError, "carbon-private" if placed else "carbon-without-place", who=who)


def check_pieces(config: Federation) -> Algorithm:
    """Build the pieces of a federation. Raises ConfigError for an illegal chain."""
    algorithm = resolve_algorithm(config)
    check_masked(config, algorithm)
    build_peers(config)
    check_votes(algorithm.reduce, config.train.cohort or len(config.participants))
    check_bound(config.screen.norm_bound, algorithm.weights)
    return algorithm


def join_groups(config: Federation, groups: Sequence[RunSetup]) -> RunSetup:
    """One run of all groups, the main base's first.

    Raises what `check_teaching` raises, where [distil] has them teach one another.
    """
    main, *others = groups
    if (how := main.algorithm.distillation) is not None:
        how = replace(how, rank=how.rank or max(group.run_spec.top_rank() for group in groups))
        check_teaching(groups, how)
    return replace(main, config=config, others=tuple(others), distillation=how)


def check_teaching(groups: Sequence[RunSetup], how: Distillation) -> None:
    """Raise ConfigError where models cannot teach one another (other vocabularies), ResourceError
    where predictions fill the memory.
    """
    main = groups[0]
    if isinstance(main.task, Causal):
        known = main.adapted.base.tokenizer.get_vocab()
        for group in groups[1:]:
            theirs = group.adapted.base.tokenizer.get_vocab()
            if theirs != known or group.nodes[0].data.train != main.nodes[0].data.train:
                counts = {
                    "theirs": len(theirs),
                    "main": len(known),
                    "same": len(theirs.items() & known.items()),
                }
                raise refusal(ConfigError, "teaching-other-words", base=group.name, **counts)
    rows = sorted((main.task.row_count(item) for item in main.nodes[0].data.train), reverse=True)
    need, free = (
        PREDICTION_BYTES * class_count(main) * sum(rows[: how.items]),
        available_bytes(None),
    )
    if need > free:
        raise refusal(
            ResourceError,
            "teaching-too-large",
            items=how.items,
            need=need / 2**30,
            free=free / 2**30,
        )
