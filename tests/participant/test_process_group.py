"""Two processes (gloo) that share each batch make the steps of one, but for rounding; also with the
base in shards.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builders import refused
from tequio.app.network.participant.processes import check_together
from tequio.config import load_federation, load_participant
from tequio.config.participant import TeamSection
from tequio.core.canonical import unpack
from tequio.core.errors import BaseModelError, ConfigError
from tequio.participant.lora import adapt
from tequio.participant.process_group import ALONE, ProcessGroup
from tequio.participant.text_tasks import Item
from tequio.planning.memory import BatchShape, ModelShape, estimate_memory

WORKER = Path(__file__).parent / "process_group_worker.py"


def run(
    processes: int, toml: Path, batch_size: int, out: Path, base: str = "whole"
) -> dict[str, Any]:
    """What the first process wrote; one process is started without torchrun. base: whole, or in
    shards.
    """
    torchrun = (
        []
        if processes == 1
        else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    )
    command = [sys.executable, *torchrun, str(WORKER), str(toml), str(batch_size), str(out), base]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    facts: dict[str, Any] = json.loads((out / f"{processes}-{base}.json").read_text())
    return facts


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "batch_size"), [("classification", 5), ("causal", 1)])
def test_two_processes_make_the_steps_of_one(
    make_federation: Any, tmp_path: Path, kind: str, batch_size: int
) -> None:
    """A batch of 5 is parted in 3 and 2; of a batch of 1 the second process has nothing, and adds a
    gradient of 0.

    The base is whole
    in both processes, or in shards, of which each keeps half."""
    toml = make_federation(kind=kind, participants=1, rows=60, centre=False)
    one = run(1, toml, batch_size, tmp_path)
    for base in ("whole", "shards"):
        two = run(2, toml, batch_size, tmp_path, base)
        for what in ("update", "personal"):
            models = [
                unpack((tmp_path / f"{tag}.{what}").read_bytes(), what)
                for tag in ("1-whole", f"2-{base}")
            ]
            assert models[0].minus(models[1]).norm() <= 1e-3 * models[0].norm(), (base, what)
        assert two["tokens"] == one["tokens"]
        assert two["chosen"] == one["chosen"]
        for figure in ("first", "last", "looked", "test"):
            assert two[figure] == pytest.approx(one[figure], rel=1e-4), (base, figure)
        assert two["joules"] > 0.0
        assert two["refused"] == [
            True,
            base == "shards",
        ]  # a local term: several share plain steps only; whole weights
    assert one["refused"] == [False, False]
    for rank in range(2):
        retained = json.loads((tmp_path / f"2-shards.{rank}.json").read_text())
        assert 0.45 * retained["whole"] <= retained["frozen"] <= 0.55 * retained["whole"]
        assert retained["path"].startswith("transformers: weights in shards among 2 processes")


def test_the_parts_of_a_batch_are_the_batch() -> None:
    batch = [Item((i,), (0,)) for i in range(7)]
    parts = [ProcessGroup(rank, 3).part(batch) for rank in range(3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert sorted(item.ids for part in parts for item in part) == [item.ids for item in batch]
    assert ALONE.part(batch) == batch
    assert ALONE.hand_on(b"as it is") == b"as it is"


def test_what_several_processes_cannot_share_is_refused_before_the_base_is_loaded(
    make_federation: Any,
) -> None:
    toml = make_federation(participants=1, centre=False)
    config = load_federation(toml)
    file = load_participant(config.participants[0].file, "site0")
    sharded = file.model_copy(update={"team": TeamSection(shard_base=True)})
    check_together(config, sharded, ProcessGroup(0, 2))
    full = config.model_copy(update={"adapter": config.adapter.model_copy(update={"kind": "full"})})
    check_together(full, file, ProcessGroup(0, 2))
    check_together(full, sharded, ALONE)  # one process: nothing is sharded
    with refused(ConfigError, "team-full"):
        check_together(full, sharded, ProcessGroup(0, 2))


def test_a_share_of_the_base_needs_less_memory() -> None:
    """And the other parts as much as before."""
    shape = ModelShape(10**9, 2, 32, 2048, 32000, ((2048, 2048),) * 64, causal=True)
    one, four = (estimate_memory(shape, BatchShape(4, 64), 8, shards=n) for n in (1, 4))
    assert 0.25 * one.base_weights < four.base_weights < 0.5 * one.base_weights
    assert four.folded_weights * 4 == one.folded_weights
    assert {k: v for k, v in one.parts().items() if "weights" not in k} == {
        k: v for k, v in four.parts().items() if "weights" not in k
    }


def test_an_output_layer_that_is_the_embeddings_is_not_adapted_in_shards() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "vocab_size": 9,
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True))
    with refused(BaseModelError, "shards-embeddings"):
        adapt(model, ["lm_head"], parted=True)
    assert set(adapt(model, ["lm_head"])) == {"lm_head"}
