"""What feeding causal bases as their tokenizers do changes:

`python -m benchmarks.encoding [--base smollm2] [--steps 6]`.

Encoding 1 is that of earlier versions: no begin-of-text token, and pairs joined and cut into
blocks. Encoding 2 is `tequio.participant.encoding`. Both train the same LoRA from the same seed for
as many steps, unless they feed the same. Losses are nats per token on test texts that training
never saw, as each encoding feeds them (that is what a report would have said) and as the model is
fed in use (encoding 2). Texts: sections of the Spanish manual pages, whole (documents), or a third
of each as prompt and the rest as response (pairs; only those that fit `max_tokens` whole). The tiny
base is a Llama of two layers that this script trains first, on other texts that all begin with the
begin-of-text token.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tequio.app.demos import fetch, manuals
from tequio.config.cache import cache_folder
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.base import load_base
from tequio.participant.chat_format import ChatFormat
from tequio.participant.data import Columns, Example, read_examples
from tequio.participant.encoding import IGNORE, Counts, Item, token_ids
from tequio.participant.loop import train
from tequio.participant.text_tasks import Causal, batches

MODULES, RANK, BATCH, SEED = ["q_proj", "v_proj"], 8, 4, 0


def first_encoding(task: Causal, examples: Sequence[Example]) -> list[Item]:
    """Return items as versions before `encoding` made them."""
    own, end = task.tokenizer, [task.tokenizer.eos_token_id]
    ids: list[int] = []
    target: list[int] = []
    for example in examples:
        if example.response is None:
            document = answer = token_ids(own, example.text) + end
        else:
            prompt = token_ids(own, ChatFormat(own).prompt([("user", example.text)]))
            response = token_ids(own, example.response) + end
            document, answer = (
                (prompt + response)[: task.max_tokens],
                ([IGNORE] * len(prompt) + response)[: task.max_tokens],
            )
        ids += document
        target += answer
    step = task.max_tokens
    blocks = [
        Item(tuple(ids[i : i + step]), tuple(target[i : i + step]))
        for i in range(0, len(ids), step)
    ]
    return [b for b in blocks if any(t != IGNORE for t in b.target[1:])]


def tiny_base(folder: Path, texts: Sequence[str], steps: int) -> Path:
    """Train a two-layer Llama on the beginnings of texts, each after its begin-of-text token, and
    write it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    own = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(SEED)
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(own),
            max_position_embeddings=256,
            bos_token_id=0,
            eos_token_id=1,
            **shape,
        )
    )
    rows = [own(text)["input_ids"][:64] for text in texts]
    rows = [row for row in rows if len(row) == 64]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        ids = torch.tensor([rows[(step * 16 + j) % len(rows)] for j in range(16)])
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


def pair(example: Example) -> Example:
    """Return a text as a pair: about a third of it, up to a space, is the prompt."""
    place = example.text.find(" ", len(example.text) // 3)
    return Example(example.text[:place], response=example.text[place + 1 :])


def compare(
    adapted: AdaptedModel,
    task: Causal,
    sets: tuple[list[Example], list[Example]],
    steps: int,
    rate: float,
) -> None:
    """Print the losses of the base and of what each encoding trains."""
    fed = {
        1: [first_encoding(task, part) for part in sets],
        2: [task.encode(part, "benchmark")[0] for part in sets],
    }
    print(
        f"  items {len(fed[1][0])} and {len(fed[2][0])}; encodings "
        f"{'equal' if fed[1] == fed[2] else 'differ'}"
    )

    def loss(items: Sequence[Item]) -> float:
        return task.losses(adapted, items).scores().loss

    base = {version: loss(items[1]) for version, items in fed.items()}
    print(f"  base: fed by encoding 1 {base[1]:.4f}, by 2 {base[2]:.4f}")
    for version in (1, 2) if fed[1] != fed[2] else ():
        parameters = adapted.attach(RANK, SEED)
        train(
            adapted,
            task,
            parameters,
            batches(fed[version][0], BATCH, SEED),
            [rate] * steps,
            "benchmark",
        )
        update = adapted.extract()
        adapted.detach()
        adapted.fold_in(update)
        print(
            f"  trained by {version}: fed by 1 {loss(fed[1][1]):.4f}, by 2 (in use) "
            f"{loss(fed[2][1]):.4f}",
            flush=True,
        )
        adapted.fold_in(type(update)({}, adapted.spec))


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", choices=["tiny", "smollm2"], default="tiny")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--train", type=int, default=160)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--kinds", nargs="+", default=["documents", "pairs"])
    options = parser.parse_args()
    data = manuals.prepare(cache_folder())
    files = sorted(data.folder.glob("participants/**/*.jsonl"))
    texts = [e for file in files for e in read_examples(file, Columns(), "causal", (), file.stem)]
    ours, others = texts[0::2], texts[1::2]
    with tempfile.TemporaryDirectory() as work:
        tiny = options.base == "tiny"
        name = str(
            tiny_base(Path(work), [e.text for e in others], 400)
            if tiny
            else fetch.smollm2(cache_folder())
        )
        base = load_base(name, "causal", torch.float32, cache_folder())
        task = Causal(base.tokenizer, options.max_tokens)
        short = [e for e in ours if len(base.tokenizer(e.text)["input_ids"]) > 8]
        adapted = AdaptedModel(base, MODULES, 2.0)
        for kind in options.kinds:
            rows = (
                short
                if kind == "documents"
                else [pair(Example(e.text[: 3 * options.max_tokens // 2])) for e in short]
            )
            rows = [
                e for e in rows if task.encoder.encode([e])[1] == Counts()
            ]  # pairs that fit whole
            print(
                f"{options.base}, {kind}, {options.steps} steps of {BATCH}, rate {options.rate:g}, "
                f"max_tokens {options.max_tokens}:"
            )
            chosen = rows[: options.train], rows[options.train : options.train + options.test]
            compare(adapted, task, chosen, options.steps, options.rate)


if __name__ == "__main__":
    main()
