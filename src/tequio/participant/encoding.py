"""The one encoder: what a model is fed in training, validation, tests, gate slices and prediction.

Documents: the tokenizer's own encoding (with its begin-of-text token where it writes one) and the
end-of-text token, packed into blocks. A document that does not fit goes on in the next block, which
then begins with the begin-of-text token too, as the tokenizer's own pieces of a long text do
(`return_overflowing_tokens`). The begin-of-text token is never a target.

Pairs and chats: one item each, so that none is split and none sees another. With a chat template
the ids are those of `apply_chat_template`, which writes the begin-of-text token itself or not at
all; without one they are the tokenizer's own encoding of the plain format (`chat_format`). Only the
assistant's turns are learnt, up to their end-of-turn token; where a template writes none, the
end-of-text token is added after the last answer.

A chat longer than `max_tokens` loses its oldest exchanges, and then the start of its last question,
of which at least a quarter of `max_tokens` stays (or all of a shorter one). A chat that does not
fit even so is left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from tequio.core.errors import BaseModelError, ConfigError
from tequio.core.texts.words import refusal
from tequio.participant.chat_format import DATE, ChatFormat, Written
from tequio.participant.reading.examples import Example, Turn

IGNORE = -100
VERSION = 2
"""Of the encoding of causal tasks, in a run's header. 1 (not recorded): no begin-of-text token,
pairs packed and split.
"""
LEAST = 4  # of max_tokens, one part in so many of the last question stays


@dataclass(frozen=True)
class Item:
    """One encoded unit: token ids, and per token its target (causal) or one class
    (classification).
    """

    ids: tuple[int, ...]
    target: tuple[int, ...]


class Counts(NamedTuple):
    """Count texts that lost tokens at `max_tokens`, and pairs that were left out because they do
    not fit.
    """

    cut: int = 0
    too_long: int = 0

    def plus(self, other: Counts) -> Counts:
        """Return the sum."""
        return Counts(self.cut + other.cut, self.too_long + other.too_long)

    def facts(self) -> dict[str, int]:
        """Return what a record says of them; `too_long` only where there are any."""
        return {"cut": self.cut} | ({"too_long": self.too_long} if self.too_long else {})


@dataclass(frozen=True)
class Encoder:
    """Encode for a causal model.

    Raises BaseModelError where the base's chat template refuses a chat.
    """

    tokenizer: Any
    max_tokens: int

    @cached_property
    def begin(self) -> list[int]:
        """Return what the tokenizer puts before a text."""
        own, bare = self._own("a"), token_ids(self.tokenizer, "a")
        if bare and own[len(own) - len(bare) :] == bare:
            return own[: len(own) - len(bare)]
        for place in range(len(own) - len(bare) + 1):
            if bare and own[place : place + len(bare)] == bare:
                return own[:place]
        first = self.tokenizer.bos_token_id
        return own[:1] if first is not None and own[:1] == [first] and bare[:1] != [first] else []

    @cached_property
    def end(self) -> list[int]:
        """Return the end-of-text token; nothing where the tokenizer has none."""
        return [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]

    @cached_property
    def chats(self) -> ChatFormat:
        """Return the format of chats."""
        return ChatFormat(self.tokenizer)

    def encode(self, examples: Iterable[Example]) -> tuple[list[Item], Counts]:
        """Return items and what was cut: the documents in blocks, then a chat per item, each in the
        order given.
        """
        documents: list[list[int]] = []
        items: list[Item] = []
        counts = Counts()
        for example in examples:
            if not (turns := example.chat()):
                documents.append(self.document(example.text))
                continue
            found, was = self.chat(turns)
            items += found
            counts = counts.plus(was)
        return [*self.packed(documents), *items], counts

    def document(self, text: str) -> list[int]:
        """Return a document's ids: the tokenizer's own encoding and the end-of-text token."""
        own = self._own(text)
        return own if own[-1:] == self.end else own + self.end

    def packed(self, documents: Iterable[Sequence[int]]) -> list[Item]:
        """Return documents one after the other in blocks of `max_tokens`, without blocks that hold
        no target.

        The last block is shorter. Raises ConfigError where no text fits beside what begins a block.
        """
        begin = self.begin
        if self.max_tokens < len(begin) + 2:
            raise refusal(
                ConfigError, "max-tokens-too-small", tokens=self.max_tokens, count=len(begin)
            )
        blocks: list[tuple[list[int], list[int]]] = [([], [])]
        for document in documents:
            rest, opening = list(document[len(begin) :]), True
            while rest:
                ids, target = blocks[-1]
                if len(ids) + (len(begin) if opening or not ids else 0) >= self.max_tokens:
                    blocks.append(([], []))
                    continue
                if opening or not ids:
                    ids += begin
                    target += [IGNORE] * len(begin)
                room, opening = self.max_tokens - len(ids), False
                ids += rest[:room]
                target += rest[:room]
                del rest[:room]
        return [Item(tuple(i), tuple(t)) for i, t in blocks if any(k != IGNORE for k in t[1:])]

    def chat(self, turns: Sequence[Turn]) -> tuple[list[Item], Counts]:
        """Return a chat as items that fit `max_tokens`, and whether it was cut or left out."""
        items = self._items(turns)
        if _longest(items) <= self.max_tokens:
            return items, Counts()
        last = turns
        for last in _later(turns):
            if _longest(items := self._items(last)) <= self.max_tokens:
                return items, Counts(cut=1)
        shorter = self._cut_question(last, self.max_tokens, lambda t: _longest(self._items(t)))
        return (
            ([], Counts(too_long=1)) if shorter is None else (self._items(shorter), Counts(cut=1))
        )

    def prompt(self, text: str, most: int | None = None) -> list[int]:
        """Return the ids of a question to be answered. most: tokens at most; a longer question
        loses its start.
        """
        turns: list[Turn] = [("user", text)]
        ids = self._prompt(turns)
        if most is None or len(ids) <= most:
            return ids
        shorter = self._cut_question(turns, most, lambda t: len(self._prompt(t)))
        return ids[-max(most, 1) :] if shorter is None else self._prompt(shorter)

    @cached_property
    def turn_end(self) -> int | None:
        """Return the token with which the chat template ends an answer;

        None where it writes none, or there is no template.
        """
        if self.chats.template is None:
            return None
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        special.update(self.tokenizer.all_special_ids)
        asked: list[Turn] = [("user", "q7"), ("assistant", "a7")]
        for turns in (asked, [("system", "s7"), *asked]):
            try:
                text = self.chats.write(turns)[-1].text
            except BaseModelError:
                continue
            closing = token_ids(self.tokenizer, text[text.rfind("a7") + 2 :])
            return next((i for i in closing if i in special), None)
        return None

    @cached_property
    def stops(self) -> list[int]:
        """Return the tokens after which an answer is over."""
        return sorted({*self.end, *([] if self.turn_end is None else [self.turn_end])})

    def facts(self) -> dict[str, Any]:
        """Return, for whoever uses the model elsewhere, how it was fed."""
        names = self.tokenizer.convert_ids_to_tokens
        template = self.chats.template
        return {
            "version": VERSION,
            "begin": names(self.begin),
            "end": names(self.end),
            "stops": names(self.stops),
            "chats": "plain: prompt, line end, response"
            if template is None
            else "chat template of the tokenizer",
            "date": DATE
            if template is not None and ("strftime_now" in template or "date_string" in template)
            else None,
        }

    def _items(self, turns: Sequence[Turn]) -> list[Item]:
        return [self._item(written) for written in self.chats.write(turns)]

    def _item(self, written: Written) -> Item:
        """Return ids and targets; where the text's own encoding joins prompt and answer, they are
        encoded one by one, as in use.
        """
        bounds = [0, *(place for span in written.spans for place in span)]
        if bounds[-1] < len(written.text):
            bounds.append(len(written.text))
        ids = self._chat_ids(written.text)
        heads = [self._chat_ids(written.text[:place]) for place in bounds[1:]]
        if any(ids[: len(head)] != head for head in heads):
            pieces = [token_ids(self.tokenizer, written.text[a:b]) for a, b in pairwise(bounds)]
            pieces[0] = self._chat_ids(written.text[: bounds[1]])
            ids = [i for piece in pieces for i in piece]
            places = list(accumulate(len(piece) for piece in pieces))
        else:
            places = [len(head) for head in heads]
        target, last, stop = [IGNORE] * len(ids), 0, False
        for start, end in zip(places[0::2], places[1::2], strict=False):
            answer = ids[start:end]
            stop = any(i in self.stops for i in answer)
            last = start + (_after(answer, self.stops) if stop else len(answer))
            target[start:last] = ids[start:last]
        more = [] if stop else self.end
        return Item(tuple(ids[:last] + more), tuple(target[:last] + more))

    def _prompt(self, turns: Sequence[Turn]) -> list[int]:
        return self._chat_ids(self.chats.prompt(turns))

    def _chat_ids(self, text: str) -> list[int]:
        """Return a chat's ids: a template writes what begins a text itself."""
        ids = token_ids(self.tokenizer, text)
        return ids if self.chats.template is not None else self.begin + ids

    def _cut_question(
        self, turns: Sequence[Turn], most: int, length: Callable[[Sequence[Turn]], int]
    ) -> list[Turn] | None:
        """Return the turns with as much of the end of the question as fits;

        None where too little of it would stay.
        """
        place = next(
            (i for i, (role, _) in enumerate(turns) if role not in ("system", "assistant")), 0
        )
        role, content = turns[place]
        ids = token_ids(self.tokenizer, content)
        stays = len(ids) - max(length(turns) - most, 1)
        while stays >= max(1, self.max_tokens // LEAST):
            shorter = [*turns[:place], (role, self._ending(content, stays)), *turns[place + 1 :]]
            over = length(shorter) - most
            if over <= 0:
                return shorter
            stays -= over
        return None

    def _ending(self, text: str, tokens: int) -> str:
        """Return the end of a text, of about so many tokens."""
        if self.tokenizer.is_fast:
            whole = self.tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
            return text[whole["offset_mapping"][-tokens][0] :].lstrip()
        return (
            str(self.tokenizer.decode(token_ids(self.tokenizer, text)[-tokens:]))
            .lstrip("\ufffd")
            .lstrip()
        )

    def _own(self, text: str) -> list[int]:
        return list(self.tokenizer(text, verbose=False)["input_ids"])


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Return a text as token ids, nothing added."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """Return a question as the model reads it before it answers."""
    return Encoder(tokenizer, 1 << 30).prompt(text)


def class_ids(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Return texts for classification: the tokenizer's own encoding, cut at `max_tokens`."""
    if not texts:
        return []
    return [
        list(row)
        for row in tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    ]


def _longest(items: Sequence[Item]) -> int:
    return max(len(item.ids) for item in items)


def _later(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Yield the chat without its first exchange, without its first two, and so on; the system's
    turns stay.
    """
    system = [turn for turn in turns if turn[0] == "system"]
    rest = [turn for turn in turns if turn[0] != "system"]
    for place in (i for i, (role, _) in enumerate(rest) if i and role == "user"):
        yield [*system, *rest[place:]]


def _after(ids: Sequence[int], wanted: Sequence[int]) -> int:
    """Return the place after the last id that is wanted."""
    return max(place for place, i in enumerate(ids, 1) if i in wanted)
