"""Who exchanges with whom, as federation.toml says it: a star round the coordinator (None), or a
graph of peers.
"""

import difflib
from collections.abc import Sequence

from tequio.config import AlgorithmSection, Federation, GateSection, ScreenSection
from tequio.coordinator.gossip import Graph, Peers, complete, mixing, reachable, ring
from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal, refuse_first


def build_peers(config: Federation) -> Peers | None:
    """The graph and its weights; None for a star.

    Raises ConfigError if the graph falls apart or names a stranger, or if something is asked for
    that needs a coordinator.
    """
    topology, names = config.topology, [entry.name for entry in config.participants]
    star = topology.kind == "star"
    asked = {
        "star-edges": topology.kind != "graph" and bool(topology.edges),
        "star-pace": star and topology.pace != 1.0,
    }
    refuse_first(ConfigError, asked, kind=topology.kind)
    if star:
        return None
    _no_coordinator(config)
    members = range(1, len(names) + 1)
    if topology.kind == "graph":
        graph = _graph(topology.edges, names)
    else:
        graph = (ring if topology.kind == "ring" else complete)(members)
    return Peers(mixing(graph), topology.pace)


def _graph(edges: Sequence[Sequence[str]], names: Sequence[str]) -> Graph:
    """Neighbours by index; the first participant is 1."""
    near: dict[int, set[int]] = {i: set() for i in range(1, len(names) + 1)}
    for edge in edges:
        for name in edge:
            if name not in names:
                nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
                raise refusal(
                    ConfigError, "edge-of-stranger", edge=list(edge), name=name, nearest=nearest
                )
        one, other = (names.index(name) + 1 for name in edge)
        if one == other:
            raise refusal(ConfigError, "edge-to-itself", edge=list(edge))
        near[one].add(other)
        near[other].add(one)
    graph = {i: frozenset(found) for i, found in near.items()}
    lost = [names[i - 1] for i in sorted(graph.keys() - reachable(graph))]
    if lost:
        raise refusal(ConfigError, "graph-in-parts", name=names[0], names=lost)
    return graph


def _no_coordinator(config: Federation) -> None:
    """Raise ConfigError for what only a coordinator can do, and for pieces that peers do not
    use.
    """
    asked = {
        "peers-centre": config.centre is not None,
        "peers-gate": config.gate != GateSection(),
        "peers-screening": config.screen != ScreenSection(),
        "peers-alone": len(config.participants) < 2,
        "peers-full": config.adapter.kind == "full",
        "peers-cohort": config.train.cohort is not None,
        "peers-buffered": config.train.pace != "rounds",
    }
    refuse_first(ConfigError, asked, kind=config.topology.kind)
    used = AlgorithmSection(weights="uniform", broadcast_rank=config.algorithm.broadcast_rank)
    chosen = config.algorithm.model_dump()
    for key, value in used.model_dump().items():
        if chosen[key] != value:
            raise refusal(ConfigError, "peers-algorithm", key=key, value=str(chosen[key]))
