"""The base is fed what plain transformers feed it: the tokenizer's own encoding, and its chat
template.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from builders import WORDS, refused
from tequio.core.errors import BaseModelError, ConfigError, DataError
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.base import load_base
from tequio.participant.data import Example
from tequio.participant.encoding import IGNORE, Counts, Encoder, Item, prompt_ids
from tequio.participant.text_tasks import Causal

LIMIT = 1e-5
SPECIAL = ["<pad>", "<s>", "</s>", "<|turn|>", "<|over|>"]
TURNS = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% "
    "generation %}{{ m['content'] }}<|over|>{% endgeneration %}{{ '\n' }}{% else %}{{ "
    "m['content'] }}<|over|>\n{% endif %}{% endfor %}{% if add_generation_prompt "
    "%}<|turn|>assistant\n{% endif %}"
)
WITH_BEGIN = "{{ bos_token }}" + TURNS
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
    "supported') }}{% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}"
)
TODAY = (
    "{{ bos_token }}<|turn|>{{ strftime_now('%d %B %Y') }}{% if date_string is defined %} {{ "
    "date_string }}{% endif %}{{ '\n' }}" + TURNS
)
THINKING = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and loop.last "
    "%}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|over|>\n{% endfor %}{% if "
    "add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
CHAT = (
    ("system", "be kind"),
    ("user", "was the train late"),
    ("assistant", "yes the train was late"),
)
LONG_CHAT = (*CHAT, ("user", "and the flight today"), ("assistant", "the flight was quick"))
MODULES = {"llama": ["q_proj", "v_proj"], "gpt": ["c_attn"], "gemma": ["q_proj", "v_proj"]}


def tokenizer(begins: bool = True, template: str | None = None, extra: Sequence[str] = ()) -> Any:
    """A byte-level BPE that writes <s> before a text, as those of Llama and Gemma do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    texts = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=[*SPECIAL, *extra],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    if begins:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    if template:
        made.chat_template = template
    return made


def model(family: str, rows: int) -> Any:
    """A two-layer model with random weights."""
    from transformers import (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        GPTBigCodeConfig,
        GPTBigCodeForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
    )

    torch.manual_seed(3)
    ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    small: dict[str, Any] = {
        "vocab_size": rows,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
    }
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**small, **ends))
    if family == "gemma":
        return Gemma3ForCausalLM(Gemma3TextConfig(**small, **ends, head_dim=16, sliding_window=16))
    return GPTBigCodeForCausalLM(
        GPTBigCodeConfig(vocab_size=rows, n_embd=32, n_layer=2, n_head=2, n_positions=256, **ends)
    )


Opened = tuple[AdaptedModel, Any, Any]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Opened]:
    """open(family) -> Tequio's base; and the model and tokenizer as plain transformers load
    them.
    """
    made: dict[str, Opened] = {}

    def make(family: str) -> Opened:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            own = tokenizer(template=NO_SYSTEM + WITH_BEGIN if family == "gemma" else WITH_BEGIN)
            model(family, len(own)).save_pretrained(folder)
            own.save_pretrained(folder)
            base = load_base(str(folder), "causal", torch.float32, folder)
            plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            made[family] = (
                AdaptedModel(base, MODULES[family], 1.0),
                plain,
                AutoTokenizer.from_pretrained(folder),
            )
        return made[family]

    return make


def nats(model: Any, ids: Sequence[int], learnt: Sequence[int]) -> tuple[float, int]:
    """Summed loss of plain transformers over the tokens that are learnt (1), and how many they are;
    never the first.
    """
    whole = torch.tensor([ids])
    labels = torch.tensor([[i if k else IGNORE for i, k in zip(ids, learnt, strict=True)]])
    with torch.no_grad():
        logits = model(input_ids=whole).logits[0, :-1].float()
    count = sum(learnt[1:])
    return float(
        F.cross_entropy(logits, labels[0, 1:], ignore_index=IGNORE, reduction="sum")
    ), count


def check(
    adapted: AdaptedModel,
    task: Causal,
    items: Sequence[Item],
    expected: Sequence[tuple[float, int]],
) -> None:
    """Compare the loss of each item with what plain transformers give."""
    losses = task.losses(adapted, items)
    assert losses.terms.tolist() == [float(count) for _, count in expected]
    for total, terms, (right, count) in zip(losses.total, losses.terms, expected, strict=True):
        assert total / terms == pytest.approx(right / count, abs=LIMIT)


def words(count: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


@pytest.mark.parametrize("family", MODULES)
def test_a_document_has_the_loss_of_plain_transformers(
    family: str, opened: Callable[[str], Opened]
) -> None:
    adapted, plain, own = opened(family)
    task = Causal(adapted.base.tokenizer, 128)
    for seed in range(3):
        text = words(20, seed)
        items, counts = task.encode([Example(text)], "north")
        ids = [*own(text)["input_ids"], own.eos_token_id]
        assert [list(item.ids) for item in items] == [ids]
        assert ids[0] == own.bos_token_id
        assert counts == Counts()
        labels = torch.tensor([ids])
        with torch.no_grad():
            right = float(plain(input_ids=labels, labels=labels).loss)
        assert task.losses(adapted, items).scores().loss == pytest.approx(right, abs=LIMIT)


@pytest.mark.parametrize("family", MODULES)
def test_a_long_document_is_fed_as_the_tokenizers_own_pieces(
    family: str, opened: Callable[[str], Opened]
) -> None:
    adapted, plain, own = opened(family)
    task, text = Causal(adapted.base.tokenizer, 24), words(60, 9)
    items, counts = task.encode([Example(text)], "north")
    cut = own(text, truncation=True, max_length=24, return_overflowing_tokens=True)
    pieces = [list(piece) for piece in cut["input_ids"]]
    pieces[-1].append(own.eos_token_id)
    assert len(pieces) > 2
    assert [list(item.ids) for item in items] == pieces
    assert counts == Counts()  # nothing of a document is lost
    check(adapted, task, items, [nats(plain, ids, [0] + [1] * (len(ids) - 1)) for ids in pieces])


@pytest.mark.parametrize("family", MODULES)
def test_packed_documents_have_the_loss_of_their_own_encodings_joined(
    family: str, opened: Callable[[str], Opened]
) -> None:
    adapted, plain, own = opened(family)
    task = Causal(adapted.base.tokenizer, 64)
    texts = [words(8, 20), words(9, 21), words(7, 22)]
    (item,), _ = task.encode([Example(text) for text in texts], "north")
    ids = [i for text in texts for i in [*own(text)["input_ids"], own.eos_token_id]]
    assert list(item.ids) == ids
    check(adapted, task, [item], [nats(plain, ids, [int(i != own.bos_token_id) for i in ids])])


@pytest.mark.parametrize("family", MODULES)
def test_pairs_and_chats_have_the_loss_of_the_chat_template(
    family: str, opened: Callable[[str], Opened]
) -> None:
    adapted, plain, own = opened(family)
    task = Causal(adapted.base.tokenizer, 128)
    chats = [
        Example("was the train late", response="yes"),
        Example("x", response="x", turns=LONG_CHAT),
    ]
    if family == "gemma":  # its template refuses a system turn
        chats[1] = Example("x", response="x", turns=LONG_CHAT[1:])
    items, counts = task.encode(chats, "north")
    expected = []
    for example, item in zip(chats, items, strict=True):
        turns = [{"role": role, "content": content} for role, content in example.chat()]
        found = own.apply_chat_template(
            turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, learnt = list(found["input_ids"]), list(found["assistant_masks"])
        assert ids[: len(item.ids)] == list(item.ids)
        assert own.decode(ids[len(item.ids) :]) == "\n"  # after the last end of turn
        assert ids.count(own.bos_token_id) == 1
        expected.append(nats(plain, ids, learnt))
    assert [count > 1 for _, count in expected] == [True, True]
    assert counts == Counts()
    check(adapted, task, items, expected)


@pytest.mark.parametrize("family", MODULES)
def test_a_pair_without_a_template_is_the_tokenizers_own_encoding(
    family: str, opened: Callable[[str], Opened]
) -> None:
    adapted, plain, _ = opened(family)
    own = tokenizer()
    task = Causal(own, 128)
    (item,), _ = task.encode([Example("was the train late ", response="yes it was")], "north")
    ids = own("was the train late\nyes it was</s>")["input_ids"]
    prompt = own("was the train late\n")["input_ids"]
    assert list(item.ids) == ids
    assert prompt_ids(own, "was the train late ") == prompt == ids[: len(prompt)]
    check(
        adapted,
        task,
        [item],
        [nats(plain, ids, [0] * len(prompt) + [1] * (len(ids) - len(prompt)))],
    )


def test_what_is_asked_in_use_begins_what_was_learnt() -> None:
    for template in (None, TURNS, WITH_BEGIN, TODAY):
        for begins in (True, False):
            encoder = Encoder(tokenizer(begins, template), 128)
            (item,), _ = encoder.encode([Example("was the pump loud", response="very loud")])
            prompt = encoder.prompt("was the pump loud")
            assert list(item.ids[: len(prompt)]) == prompt
            assert set(item.target[: len(prompt)]) == {IGNORE}
            assert item.target[len(prompt) :] == item.ids[len(prompt) :]
            assert prompt.count(1) == (template in (WITH_BEGIN, TODAY) if template else begins)


def test_several_turns_without_a_template() -> None:
    own = tokenizer()
    (item,), _ = Encoder(own, 128).encode([Example("x", response="x", turns=LONG_CHAT)])
    assert own.decode(item.ids) == (
        "<s>system:\nbe kind\nuser:\nwas the train late\nassistant:\nyes the train was late</s>\n"
        "user:\nand the flight today\nassistant:\nthe flight was quick</s>"
    )
    learnt = own.decode([i for i in item.target if i != IGNORE])
    assert learnt == "yes the train was late</s>the flight was quick</s>"


def test_no_pair_is_split_and_none_shares_an_item() -> None:
    own, shapes = tokenizer(), random.Random(1)
    pairs = [
        Example(words(shapes.randint(1, 12), i), response=words(shapes.randint(1, 12), 99 - i))
        for i in range(60)
    ]
    items, counts = Encoder(own, 40).encode(pairs)
    assert counts == Counts()
    for pair, item in zip(pairs, items, strict=True):
        assert own.decode(item.ids) == f"<s>{pair.text}\n{pair.response}</s>"
        assert item.ids[0] == own.bos_token_id


def test_a_long_prompt_loses_its_start_and_a_long_response_is_left_out() -> None:
    for template in (None, WITH_BEGIN):
        own = tokenizer(template=template)
        encoder = Encoder(own, 32)
        question, answer = words(60, 5), words(5, 6)
        (item,), counts = encoder.encode([Example(question, response=answer)])
        assert counts == Counts(cut=1)
        assert 28 <= len(item.ids) <= 32
        text = own.decode(item.ids)
        assert own.decode([i for i in item.target if i != IGNORE]).startswith(answer)
        asked = (
            text[: text.index(answer)]
            .replace("<|turn|>user\n", "")
            .replace("<|over|>\n<|turn|>assistant", "")
        )
        assert question.endswith(asked.removeprefix("<s>").strip())
        assert len(asked) > 20
        items, counts = encoder.encode(
            [Example(question, response=words(40, 7)), Example("the pump", response=answer)]
        )
        assert counts == Counts(too_long=1)
        assert len(items) == 1
    with refused(DataError, "pairs-too-long", tokens=32):
        Causal(tokenizer(), 32).encode([Example("the pump", response=words(40, 7))], "north")


def test_a_long_chat_loses_its_oldest_exchanges_and_keeps_its_system_turn() -> None:
    own = tokenizer(template=WITH_BEGIN)
    turns = [("system", "be kind")]
    for i in range(6):
        turns += [("user", words(4, i)), ("assistant", words(4, 50 + i))]
    (item,), counts = Encoder(own, 64).encode([Example("x", response="x", turns=tuple(turns))])
    assert counts == Counts(cut=1)
    text = own.decode(item.ids)
    assert text.startswith("<s><|turn|>system\nbe kind<|over|>\n<|turn|>user\n")
    assert text.endswith(f"<|turn|>assistant\n{turns[-1][1]}<|over|>")
    assert len(item.ids) <= 64
    assert turns[1][1] not in text
    assert turns[-2][1] in text


def test_blocks_lose_no_token_and_begin_as_the_tokenizer_begins() -> None:
    shapes = random.Random(2)
    for begins in (True, False):
        own = tokenizer(begins)
        texts = [words(shapes.randint(1, 40), i) for i in range(40)]
        for most in (4, 7, 16):
            encoder = Encoder(own, most)
            documents = [encoder.document(text) for text in texts]
            items = encoder.packed(documents)
            assert all(len(item.ids) <= most for item in items)
            if begins:
                assert all(item.ids[0] == own.bos_token_id for item in items)
            tokens = [i for item in items for i in item.ids if i != own.bos_token_id]
            wanted = [i for document in documents for i in document if i != own.bos_token_id]
            assert tokens == wanted[: len(tokens)]
            assert len(tokens) >= len(wanted) - 1  # a last block of one token teaches nothing
            assert all(
                t in (i, IGNORE)
                for item in items
                for i, t in zip(item.ids, item.target, strict=True)
            )
            assert all(
                (t == IGNORE) == (i == 1)
                for item in items
                for i, t in zip(item.ids, item.target, strict=True)
            )
    with refused(ConfigError, "max-tokens-too-small"):
        Encoder(tokenizer(), 2).encode([Example("the pump")])


def test_a_date_in_a_template_is_always_the_same() -> None:
    own = tokenizer(template=TODAY)
    (item,), _ = Encoder(own, 128).encode([Example("was the pump loud", response="very loud")])
    text = own.decode(item.ids)
    assert text.startswith("<s><|turn|>26 July 2024 26 Jul 2024\n<|turn|>user\nwas the pump loud")
    assert Encoder(own, 128).facts()["date"] == "26 Jul 2024"


def test_a_template_that_refuses_gives_its_own_message_and_no_text() -> None:
    needs = (
        "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system message is "
        "required') }}{% endif %}"
    )
    own = tokenizer(template=needs + TURNS)
    encoder = Encoder(own, 64)
    calls: tuple[Callable[[], object], ...] = (
        lambda: encoder.encode([Example("secret words", response="more")]),
        lambda: encoder.prompt("secret words"),
    )
    for call in calls:
        with refused(
            BaseModelError, "template-refused", message="a system message is required"
        ) as caught:
            call()
        assert caught.value.exit_code == 4
        assert "secret" not in str(caught.value)
    assert len(Encoder(own, 64).encode([Example("x", response="x", turns=CHAT)])[0]) == 1
    quoting = "{{ raise_exception('not allowed: ' + messages[0]['content']) }}"
    broken = "{{ messages[0]['content'].nothing() }}"
    for template in (quoting, broken):
        with pytest.raises(BaseModelError) as caught:
            Encoder(tokenizer(template=template), 64).prompt("secret words")
        assert "secret" not in str(caught.value)


def test_a_template_without_a_system_turn_gets_it_in_the_first_question() -> None:
    for strict in (NO_SYSTEM, STRICT):
        own = tokenizer(template=strict + WITH_BEGIN)
        (item,), _ = Encoder(own, 128).encode([Example("x", response="x", turns=CHAT)])
        assert own.decode(item.ids) == (
            "<s><|turn|>user\nbe kind\n\nwas the train late<|over|>\n<|turn|>assistant\nyes the "
            "train was late<|over|>"
        )
    twice = (("user", "was the train late"), ("user", "or the flight"), ("assistant", "the train"))
    (item,), _ = Encoder(tokenizer(template=STRICT + TURNS), 128).encode(
        [Example("x", response="x", turns=twice)]
    )
    assert "was the train late\n\nor the flight<|over|>" in tokenizer().decode(item.ids)


def test_a_template_that_rewrites_earlier_turns_gives_an_item_per_answer() -> None:
    own = tokenizer(template=THINKING)
    items, _ = Encoder(own, 128).encode([Example("x", response="x", turns=LONG_CHAT)])
    assert [own.decode([i for i in item.target if i != IGNORE]) for item in items] == [
        "<think>\n\n</think>\n\nyes the train was late<|over|>",
        "<think>\n\n</think>\n\nthe flight was quick<|over|>",
    ]
    assert own.decode(items[1].ids).count("<think>") == 1


def test_an_answer_ends_where_the_template_ends_it() -> None:
    own = tokenizer(template=TURNS)
    assert [own.convert_ids_to_tokens(i) for i in Encoder(own, 64).stops] == ["</s>", "<|over|>"]
    bare = tokenizer(template="{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    (item,), _ = Encoder(bare, 64).encode([Example("the pump", response="was loud")])
    assert bare.decode(item.ids) == "the pump\nwas loud\n</s>"
    assert item.target[-1] == bare.eos_token_id


def test_a_word_that_joins_prompt_and_answer_is_encoded_in_two_parts() -> None:
    """In use the prompt is encoded alone, so no token may span both."""
    own = tokenizer(template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    encoder = Encoder(own, 64)
    (item,), _ = encoder.encode([Example("the tr", response="ain was late")])
    prompt = encoder.prompt("the tr")
    assert list(item.ids[: len(prompt)]) == prompt
    assert own("the train was late")["input_ids"][1 : len(prompt) + 1] != prompt
    assert own.decode([i for i in item.target if i != IGNORE]) == "ain was late</s>"


def test_a_question_longer_than_the_base_reads_loses_its_start() -> None:
    for template in (None, WITH_BEGIN):
        own = tokenizer(template=template)
        encoder, question = Encoder(own, 64), words(90, 3)
        ids = encoder.prompt(question, 40)
        assert 36 <= len(ids) <= 40
        assert ids[0] == own.bos_token_id
        assert (
            own.decode(ids)
            .rstrip()
            .removesuffix("<|over|>\n<|turn|>assistant")
            .endswith(question[-60:])
        )
        assert encoder.prompt(question, 500) == encoder.prompt(question)
        assert len(encoder.prompt(question, 8)) == 8
