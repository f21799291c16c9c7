"""How a run uses the processor's cores: a few participants side by side with one thread each, or
one at a time with all threads.

Small products share one core better than two cores share a small product. What a participant
computes depends, in its last bits, on its threads, never on how many work beside it: so threads are
chosen by what does not change from run to run, are recorded, and kept on resume.
"""

from dataclasses import replace

import torch

from tequio.app.assembly.algorithm import Algorithm
from tequio.app.assembly.memory import load_model_shape, process_memory
from tequio.app.assembly.setup import RunSetup
from tequio.config import Federation
from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal
from tequio.participant.base import best_device
from tequio.planning.memory import MemorySum, available_bytes, check_memory, installed_bytes

# hidden units from which several threads on one participant pay, where participants are too few to
# fill the cores
WIDE = 1024


def choose_workers(
    config: Federation, algorithm: Algorithm, asked: int | None, recorded: int | None = None
) -> int:
    """How many participants work side by side; sets the threads of torch for the whole process.

    asked: None leaves the threads as they are (one participant at a time), 0 chooses, another
        number is taken, with one thread each.
    recorded: the threads with which the run began. The cores to use are the threads that torch has
        now. Raises ConfigError where
    more than one worker is asked for on a GPU or in a run that began with several threads,
    ResourceError where memory is too small.
    """
    cores, members = torch.get_num_threads(), len(config.participants) + (config.centre is not None)
    if asked is None:
        return 1
    most = min(cores if asked == 0 else asked, members)
    alone = best_device().type != "cpu" or (recorded or 1) > 1
    if alone and most > 1 and asked > 1:
        raise refusal(ConfigError, "workers-of-one", asked=asked)
    if alone or (asked == 0 and not recorded and not _pays(config, algorithm, most, cores)):
        torch.set_num_threads(recorded or cores)
        return 1
    torch.set_num_threads(1)
    if asked > 1:
        check_memory(
            _needed(config, algorithm, most),
            available_bytes(None),
            f"This machine, with --workers {most},",
        )
    while (
        asked == 0 and most > 1 and _needed(config, algorithm, most).total > available_bytes(None)
    ):
        most -= 1
    return most


def _needed(config: Federation, algorithm: Algorithm, models: int) -> MemorySum:
    return process_memory(config, algorithm, len(config.participants), models)


def _pays(config: Federation, algorithm: Algorithm, most: int, cores: int) -> bool:
    """Whether participants go side by side: half of the memory installed is enough, and threads
    would not fill the cores better.
    """
    if most < 2 or config.bases:  # several bases: what they need together is not summed up here
        return False
    wide = load_model_shape(config, algorithm).hidden >= WIDE
    if wide and most < cores:
        return False
    return _needed(config, algorithm, most if wide else 2).total <= installed_bytes() // 2


def side_by_side(setup: RunSetup, workers: int) -> tuple[RunSetup, ...]:
    """The run as each worker sees it: one base, an adapted model for each, and meters that charge a
    participant for its own thread.
    """
    if workers < 2:
        return (setup,)
    return tuple(_at(setup, worker) for worker in range(workers))


def _at(setup: RunSetup, worker: int) -> RunSetup:
    adapted = setup.adapted if worker == 0 else setup.adapted.twin()
    nodes = {
        i: replace(n, adapted=adapted, meter=n.meter.of_thread()) for i, n in setup.nodes.items()
    }
    others = tuple(_at(other, worker) for other in setup.others)
    return replace(
        setup, adapted=adapted, nodes=nodes, meter=setup.meter.of_thread(), others=others
    )
