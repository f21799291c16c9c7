"""The helper process that cannot start is an error of this machine, not of the template; the next
chat tries again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builders import refused
from tequio.core.errors import ResourceError
from tequio.participant.chat_format import ChatFormat
from tequio.participant.template_renderer import _RENDERER

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
CHAT = (("user", "was the train late"), ("assistant", "yes"))


@pytest.fixture
def chats(tiny_llama: Path) -> ChatFormat:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = TURNS
    return ChatFormat(tokenizer)


def test_a_helper_that_does_not_start_is_said_to_be_one(
    chats: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child finds a broken library first."""
    (tmp_path / "transformers.py").write_text("raise SystemExit(3)")
    _RENDERER.close()
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(ResourceError) as caught:
            chats.write(CHAT)
        assert (
            caught.value.what
            == "The process that applies chat templates did not start: it ended with 3."
        )
        assert "not the cause" in caught.value.why
        assert "malicious" not in str(caught.value)
        assert "template_child.py" in caught.value.fix
        patch.setattr("sys.executable", str(tmp_path / "nothing"))
        with refused(ResourceError, "template-not-started", why="No such file or directory"):
            chats.write(CHAT)
    assert chats.write(CHAT)[0].text.startswith("<|user|>was the train late")
