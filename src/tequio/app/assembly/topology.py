"""Who exchanges with whom, as federation.toml says it: a star round the coordinator (None), or a graph of peers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from tequio.config import AlgorithmSection, Federation, GateSection, ScreenSection
from tequio.coordinator.gossip import Graph, Peers, complete, mixing, reachable, ring
from tequio.core.errors import ConfigError

LEGAL = (
    'Use reduce = "stack", weights = "uniform", server = "sgd" and start = "fresh", with plain uploads and downloads.'
)


def build_peers(config: Federation) -> Peers | None:
    """The graph and its weights; None for a star.

    Raises ConfigError if the graph falls apart or names a stranger, or if something is asked for that needs a coordinator.
    """
    topology, names = config.topology, [entry.name for entry in config.participants]
    if topology.kind != "graph" and topology.edges:
        raise ConfigError(
            f"[topology] kind = {topology.kind!r} has no edges.", "", 'Leave edges out, or use kind = "graph".'
        )
    if topology.kind == "star":
        if topology.pace != 1.0:
            raise ConfigError("[topology] pace is how far peers move; a star has none.", "", "Leave it out.")
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
                why = f"{name!r} is not on the roster."
                raise ConfigError(f"[topology] edges: {list(edge)}.", why, f"Did you mean {nearest!r}?")
        one, other = (names.index(name) + 1 for name in edge)
        if one == other:
            raise ConfigError(f"[topology] edges: {list(edge)}.", "An edge joins two participants.", "Remove it.")
        near[one].add(other)
        near[other].add(one)
    graph = {i: frozenset(found) for i, found in near.items()}
    lost = [names[i - 1] for i in sorted(graph.keys() - reachable(graph))]
    if lost:
        why = f"No path leads from {names[0]} to {', '.join(lost)}."
        raise ConfigError("[topology] edges: the graph falls apart.", why, "Add edges that join the parts.")
    return graph


def _no_coordinator(config: Federation) -> None:
    """Raise ConfigError for what only a coordinator can do, and for pieces that peers do not use."""
    what = f"[topology] kind = {config.topology.kind!r}: peers have no "
    if config.centre is not None:
        fix = "Leave out [centre] and [gate], or make it a participant."
        raise ConfigError(f"{what}centre.", "Nobody mixes its update into everybody's.", fix)
    if config.gate != GateSection():
        raise ConfigError(f"{what}gate.", "Nobody sees the public slices for all.", "Leave out [gate].")
    if config.screen != ScreenSection():
        raise ConfigError(f"{what}screening.", "Nobody sees all updates.", "Leave out [screen].")
    if len(config.participants) < 2:
        raise ConfigError(f"{what}neighbours.", "There is one participant.", "Add one, or use a star.")
    if config.adapter.kind == "full":
        why = "Every peer would keep its neighbours' whole weights beside its own."
        raise ConfigError(f'{what}[adapter] kind = "full".', why, 'Use kind = "lora", or a star.')
    if config.train.cohort is not None:
        raise ConfigError(f"{what}cohort.", "Nobody draws it; everybody trains in each round.", "Leave out cohort.")
    if config.train.pace != "rounds":
        raise ConfigError(f"{what}buffer.", "Everybody waits for its neighbours.", 'Use [train] pace = "rounds".')
    used = AlgorithmSection(weights="uniform", broadcast_rank=config.algorithm.broadcast_rank)
    chosen = config.algorithm.model_dump()
    for key, value in used.model_dump().items():
        if chosen[key] != value:
            why = "A peer adds its own update to its own model and moves toward its neighbours' by the graph's weights."
            raise ConfigError(f"[algorithm] {key} = {chosen[key]!r} does not go with peers.", why, LEGAL)
