"""How fast can a LoRA step be here, how fast is it, and where does the time go?

SmolLM2-135M at 8 × 128 tokens, MiniLM at 8 × 32, and
MiniLM on the demo's tweets (`tweets`), eight of unequal length in a batch, which the plain loop
pads to the longest.

Measured: the peak of matrix products and the memory's bandwidth. Counted: operations and bytes of a
step whose frozen weights need no gradient. Timed in turns, in one process: the plain loop of
transformers and peft in float32, the same in bfloat16 with bfloat16 adapters, and Tequio's. Wall
time, and processor time where the machine is shared. The same texts in the same order: losses are
compared too. Run: python -m benchmarks.roofline [--pairs 5] [--threads 1] [--models smollm2 minilm
tweets] [--modules q_proj v_proj] [--profile]
"""

from __future__ import annotations

import argparse
import json
import pydoc_data.topics
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tequio.cli.environment import prepare_process

prepare_process()

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from tequio.app.demos.fetch import minilm, smollm2
from tequio.app.demos.sentiment import prepare
from tequio.config.cache import cache_folder
from tequio.participant.adapted_model import AdaptedModel, head_at_zero
from tequio.participant.base import best_dtype, keep_products, load_base
from tequio.participant.data import Example
from tequio.participant.loop import adamw, train
from tequio.participant.text_tasks import Causal, Classification, Item, TextTask

RANK, SCALE, RATE = 16, 2.0, 2e-4
CLASSES = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear", "mkldnn"),
    "attention": ("attention", "softmax"),
    "loss": ("log_softmax", "nll_loss", "exp", "logsumexp", "gather", "scatter"),
    "copies and casts": ("copy", "to_copy", "clone", "cat", "contiguous", "fill", "zero", "index"),
}


@dataclass(frozen=True)
class Work:
    """One model with its texts.

    `step(k)` of an arm makes one step on batch k and returns the loss.
    """

    name: str
    kind: Any
    folder: str
    modules: list[str]
    batch: int
    length: int
    batches: list[list[Item]]

    def tokens(self) -> float:
        """Real tokens of a batch, the mean."""
        return sum(len(item.ids) for batch in self.batches for item in batch) / len(self.batches)


def gflops(run: Callable[[], Any], operations: float, seconds: float = 0.4) -> float:
    """Best of as many runs as fit in the time, in 10⁹ operations a second."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return operations / best / 1e9


def peak(dtype: torch.dtype) -> float:
    """The best of some square and tall products."""
    found = []
    for m, k, n in (
        (1024, 1024, 1024),
        (2048, 2048, 2048),
        (1024, 576, 1536),
        (1024, 1536, 576),
        (1024, 576, 192),
    ):
        x, w = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
        found.append(gflops(lambda x=x, w=w: F.linear(x, w), 2.0 * m * k * n))  # type: ignore[misc]
    return max(found)


def bandwidth() -> float:
    """GB/s of reading 512 MiB, once."""
    x = torch.ones(2**27)
    return gflops(x.sum, 4.0 * len(x))


def tweets(task: TextTask, batch: int, count: int) -> list[list[Item]]:
    """Those of the demo's first participant, in the order of the file."""
    rows = (
        prepare(cache_folder())
        .participants[0]
        .data.read_text(encoding="utf-8")
        .splitlines()[: batch * count]
    )
    items, _ = task.encode(
        [Example(json.loads(row)["text"], label="ab"[k % 2]) for k, row in enumerate(rows)], "x"
    )
    return [items[i : i + batch] for i in range(0, batch * count, batch)]


def texts(
    task: TextTask, labels: tuple[str, ...], batch: int, count: int, length: int
) -> list[list[Item]]:
    """Python's own help texts as full batches."""
    words = " ".join(
        pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics)
    ).split()
    if labels:
        cut = [" ".join(words[i : i + 22]) for i in range(0, len(words), 22)]
        rows = [Example(text, label=labels[k % len(labels)]) for k, text in enumerate(cut)]
    else:
        rows = [Example(" ".join(words))]
    items, _ = task.encode(rows[: batch * count] if labels else rows, "x")
    items = [item for item in items if len(item.ids) == length or labels]
    return [items[i : i + batch] for i in range(0, batch * count, batch)]


def work_of(name: str, modules: list[str] | None, count: int) -> Work:
    from transformers import AutoTokenizer

    cache = cache_folder()
    causal = name == "smollm2"
    file = str(smollm2(cache) if causal else minilm(cache))
    kind: Any = "causal" if causal else "classification"
    base = load_base(file, kind, torch.float32, cache)  # a GGUF becomes a folder here
    config: Any = base.model.config
    folder = str(config._name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    length = 128 if causal else 64 if name == "tweets" else 32
    task: TextTask = (
        Causal(tokenizer, length) if causal else Classification(tokenizer, ("a", "b"), length)
    )
    usual = ["q_proj", "v_proj"] if causal else ["query", "value"]
    parts = (
        tweets(task, 8, count)
        if name == "tweets"
        else texts(task, () if causal else ("a", "b"), 8, count, length)
    )
    return Work(name, kind, folder, modules or usual, 8, length, parts)


def plain_arm(work: Work, dtype: torch.dtype) -> tuple[Callable[[int], float], nn.Module]:
    """What one writes with transformers and peft."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    auto = AutoModelForCausalLM if work.kind == "causal" else AutoModel
    settings = LoraConfig(r=RANK, lora_alpha=int(RANK * SCALE), target_modules=work.modules)
    loaded = auto.from_pretrained(work.folder, dtype=dtype)
    model: Any = get_peft_model(loaded, settings, autocast_adapter_dtype=False).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    parameters = [p for p in model.parameters() if p.requires_grad]
    head = None
    if work.kind == "classification":
        head = nn.Linear(model.config.hidden_size, 2, dtype=dtype)
        nn.init.zeros_(head.weight)
        parameters += list(head.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    tokenizer = AutoTokenizer.from_pretrained(work.folder)

    def step(k: int) -> float:
        items = work.batches[k % len(work.batches)]
        if head is None:
            ids = torch.tensor([i.ids for i in items])
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        else:
            padded = tokenizer.pad({"input_ids": [list(i.ids) for i in items]}, return_tensors="pt")
            hidden = model(**padded).last_hidden_state
            mask = padded["attention_mask"][..., None].to(hidden.dtype)
            pooled = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1) * 10.0
            loss = F.cross_entropy(head(pooled).float(), torch.tensor([i.target[0] for i in items]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step, model


def our_arm(work: Work, dtype: torch.dtype) -> tuple[Callable[[int], float], AdaptedModel]:
    """The same through Tequio's loop."""
    base = load_base(work.folder, work.kind, dtype, cache_folder())
    head = head_at_zero(base, 2) if work.kind == "classification" else None
    adapted = AdaptedModel(base, work.modules, SCALE, head)
    task: TextTask = Causal(base.tokenizer, work.length)
    if head is not None:
        task = Classification(base.tokenizer, ("a", "b"), work.length)
    parameters = adapted.attach(RANK, 0)
    optimizer = adamw(parameters)

    def step(k: int) -> float:
        items = work.batches[k % len(work.batches)]
        return train(adapted, task, parameters, iter([items]), [RATE], "x", optimizer).loss_first

    return step, adapted


def floor(work: Work, adapted: AdaptedModel) -> tuple[float, float]:
    """(operations, bytes) of the frozen products of a step: forward, and the gradient of the
    input.

    Embeddings are looked up.
    """
    weights = 0
    for path, module in adapted.model.named_modules():
        if path.startswith("pooler"):
            continue  # not used
        weight = getattr(module, "weight", None)
        if (
            isinstance(weight, Tensor)
            and weight.dim() == 2
            and not isinstance(module, nn.Embedding)
        ):
            weights += weight.numel()
    rows = work.tokens()
    size = torch.empty(0, dtype=adapted.base.dtype).element_size()
    return 4.0 * weights * rows, 2.0 * weights * size


def classes(run: Callable[[], Any]) -> str:
    """Shares of processor time by class of operation."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    shares: dict[str, float] = {}
    for event in found.key_averages():
        names = [
            name for name, parts in CLASSES.items() if any(part in event.key for part in parts)
        ]
        kind = names[0] if event.key.startswith("aten::") and names else "element by element"
        shares[kind] = shares.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(shares.values())
    return ", ".join(
        f"{name} {share / total:.0%}" for name, share in sorted(shares.items(), key=lambda x: -x[1])
    )


def compare(
    work: Work,
    pairs: int,
    profiled: bool,
    chosen: list[str] | None,
    peaks: dict[torch.dtype, float],
    gbs: float,
) -> None:
    best = best_dtype()
    ours, adapted = our_arm(work, best)
    arms: dict[str, Callable[[int], float]] = {"plain float32": plain_arm(work, torch.float32)[0]}
    if best == torch.bfloat16:
        arms["plain bfloat16"] = plain_arm(work, torch.bfloat16)[0]
    arms["tequio"] = ours
    arms = {name: arm for name, arm in arms.items() if name in chosen} if chosen else arms
    operations, read = floor(work, adapted)
    tokens = work.tokens()
    least = max(operations / peaks[best] / 1e9, read / gbs / 1e9)
    print(
        f"\n{work.name}, {', '.join(work.modules)}, rank {RANK}, {tokens:.0f} tokens a step: "
        f"{adapted.path.why}"
    )
    print(
        f"frozen products: {operations / 1e9:.0f} GFLOP and {read / 2**20:.0f} MiB a step, so "
        f"{least:.3f} s at least"
    )
    walls: dict[str, list[float]] = {name: [] for name in arms}
    processor: dict[str, list[float]] = {name: [] for name in arms}
    losses: dict[str, list[float]] = {name: [] for name in arms}
    for k in range(pairs + 1):
        for name, step in arms.items():
            begin, cpu = time.perf_counter(), time.process_time()
            losses[name].append(step(k))
            if k:  # the first step warms up
                walls[name].append(time.perf_counter() - begin)
                processor[name].append(time.process_time() - cpu)
    print(
        "| arm | s a step | tokens/s | of the peak | × first arm (wall, processor) | × bfloat16 | "
        "mean loss |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in arms:
        wall = statistics.median(walls[name])
        cells = [
            f"{wall:.3f}",
            f"{tokens / wall:.0f}",
            f"{operations / wall / 1e9 / peaks[best]:.0%}",
        ]
        first = next(iter(arms))
        cells.append(f"{ratio(walls, first, name):.2f}, {ratio(processor, first, name):.2f}")
        cells.append(
            f"{ratio(walls, 'plain bfloat16', name):.2f}" if "plain bfloat16" in arms else ""
        )
        print(
            f"| {name} | {' | '.join(cells)} | {statistics.fmean(losses[name]):.4f} |", flush=True
        )
    if profiled:
        for name, step in arms.items():
            print(f"{name}: {classes(lambda step=step: step(0))}", flush=True)  # type: ignore[misc]


def ratio(times: dict[str, list[float]], first: str, second: str) -> float:
    """Median over the pairs of how many times as long the first takes."""
    return statistics.median(a / b for a, b in zip(times[first], times[second], strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", default=["smollm2", "minilm", "tweets"])
    parser.add_argument("--modules", nargs="+", default=None)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--arms", nargs="+", default=None)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    keep_products("causal")  # before the first product: texts of both kinds follow in this process
    peaks = {dtype: peak(dtype) for dtype in (torch.float32, torch.bfloat16)}
    gbs = bandwidth()
    shown = ", ".join(
        f"{str(dtype).removeprefix('torch.')} {value:.0f} GFLOP/s" for dtype, value in peaks.items()
    )
    print(f"{chosen.threads} threads: {shown}, memory {gbs:.1f} GB/s", flush=True)
    for name in chosen.models:
        compare(
            work_of(name, chosen.modules, chosen.pairs + 1),
            chosen.pairs,
            chosen.profile,
            chosen.arms,
            peaks,
            gbs,
        )


if __name__ == "__main__":
    main()
