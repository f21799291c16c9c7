"""A chat template is a program of the base's maker: what takes too much is stopped by the kernel,
and named.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from tequio.core.errors import BaseModelError
from tequio.participant.chat_format import ChatFormat
from tequio.participant.template_child import LONGEST, MEMORY, SECONDS

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
ASKS = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
CHAT = (("user", "was the train late"), ("assistant", "yes, “late”\n\tand 晚"))
LOOP = "{% for i in range(99999) %}"
GROWS = (
    "{% set s = namespace(t='x' * 64) %}{% for i in range(40) %}{% set s.t = s.t ~ s.t %}{% "
    "endfor %}{{ s.t }}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama)


def refused(tokenizer: Any, template: str) -> str:
    tokenizer.chat_template = template + TURNS + ASKS
    with pytest.raises(BaseModelError) as caught:
        ChatFormat(tokenizer).write(CHAT)
    assert caught.value.fix
    assert not any(content in str(caught.value) for _, content in CHAT)
    return str(caught.value)


@pytest.mark.parametrize("answer", [False, True])
def test_a_chat_is_what_the_library_writes_in_this_process(tokenizer: Any, answer: bool) -> None:
    tokenizer.chat_template = TURNS + ASKS
    chat = [{"role": role, "content": content} for role, content in CHAT]
    expected = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=answer)
    assert ChatFormat(tokenizer)._write(CHAT, answer) == expected
    assert "晚" in expected


def test_loops_without_end_are_stopped_by_the_processors_time(tokenizer: Any) -> None:
    """10^15 steps; and the next chat is written, by a new process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = refused(tokenizer, LOOP * 3 + "{% endfor %}" * 3)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert f"was stopped: it takes more than {SECONDS} s of the processor" in said
    assert str(tokenizer.name_or_path) in said
    assert after.ru_utime - before.ru_utime < SECONDS + 10
    tokenizer.chat_template = TURNS + ASKS
    assert len(ChatFormat(tokenizer).write(CHAT)) == 1


@pytest.mark.parametrize("template", ["{{ 'A' * 900000000 }}" * 2, GROWS])
def test_texts_without_end_are_stopped_by_memory(tokenizer: Any, template: str) -> None:
    assert f"more than {MEMORY >> 20} MiB of memory" in refused(tokenizer, template)


def test_a_long_text_and_a_long_template_are_refused(tokenizer: Any) -> None:
    assert "makes a text of" in refused(tokenizer, f"{{{{ 'A' * {LONGEST + 1} }}}}")
    assert "characters, more than any template needs" in refused(tokenizer, "A" * (1 << 21))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "access to attribute '__class__'"),
        ("{{ nobody.knows.this }}", "'nobody' is undefined"),
        ("{% for %}", "refused a chat"),
        ("{{ 1 // 0 }}", "division"),
    ],
)
def test_an_error_of_a_template_is_one_named_error(
    tokenizer: Any, template: str, words: str
) -> None:
    assert words in refused(tokenizer, template)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of later versions, about threads
def test_a_forked_process_has_a_helper_of_its_own(tokenizer: Any) -> None:
    """Two processes that write into one pipe would read each other's chats."""
    from tequio.participant import template_renderer

    tokenizer.chat_template = TURNS + ASKS
    format_ = ChatFormat(tokenizer)
    expected = format_.write(CHAT)
    ours = template_renderer._RENDERER._process
    assert ours is not None
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        same = format_.write(CHAT) == expected
        helper = template_renderer._RENDERER._process
        os.write(write, b"1" if same and helper is not None and helper.pid != ours.pid else b"0")
        template_renderer._RENDERER.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1) == b"1"
    os.close(read)
    os.close(write)
    assert format_.write(CHAT) == expected
    assert template_renderer._RENDERER._process is ours
