"""Which models are trained layer by layer here, and what an adapted model then asks: hidden states
and losses.

A model that is of a known family is tried beside transformers' own code on a few tokens before it
is taken; whatever else there is goes the way of transformers. What was chosen, and why, is a
sentence that reports can print.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tequio.participant.fused import decoder, encoder
from tequio.participant.fused.attention import causal_mask, padding_mask
from tequio.participant.lora import AdaptedLinear

DECODERS, ENCODERS = ("llama", "mistral", "qwen2"), ("bert",)
LONGEST = (
    512  # tokens: beyond, attention's probabilities, length² of each layer, are better not kept
)
ROWS = 16  # kernels are made anew for every number of rows, so few numbers are better
NEAR = {
    torch.float32: 1e-4,
    torch.bfloat16: 5e-2,
}  # of the norm: how far hidden states may be from transformers' own


def keeps(tokens: int) -> bool:
    """Whether these layers may be the ones, which keep attention's probabilities for their backward
    pass.
    """
    return tokens <= LONGEST


class Decoder:
    """A causal model's layers."""

    def __init__(self, model: Any) -> None:
        self.body, self.output = model.model, model.lm_head
        self.frozen_output = frozen_output(self.output)
        self.layers = [decoder.DecoderLayer(layer) for layer in self.body.layers]

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states (batch × length × width) before the output layer; padding is on the
        right.
        """
        batch, length = ids.shape
        x = self.body.embed_tokens(ids)
        cos, sin = self.body.rotary_emb(
            x, position_ids=torch.arange(length, device=ids.device)[None]
        )
        half, scaling = cos.shape[-1] // 2, self.layers[0].attention.scaling
        cos, sin = cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()
        looks = causal_mask(length, x.dtype).to(x.device)
        where = decoder.Where(batch, 2 * half, cos * scaling, sin * scaling, cos, sin, looks)
        x = x.view(batch * length, -1)
        for layer in self.layers:
            x = layer(x, where)
        out: Tensor = self.body.norm(x.view(batch, length, -1))
        return out


class Encoder:
    """An encoder's layers."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = [encoder.EncoderLayer(layer) for layer in model.encoder.layer]
        self.adapted = [module for module in model.modules() if isinstance(module, AdaptedLinear)]

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states (batch × length × width); anything at padding."""
        batch, length = ids.shape
        x = self.model.embeddings(input_ids=ids).view(batch * length, -1)
        own = self.model.encoder.layer[0].attention.self
        hides = padding_mask(mask, x.dtype)
        rows = None if hides is None or self._stacked() else real_rows(mask)
        where = encoder.Where(batch, length, own.attention_head_size, own.scaling, hides, rows)
        x = x if rows is None else x.index_select(0, rows)
        for layer in self.layers:
            x = layer(x, where)
        return where.whole(x).view(batch, length, -1)

    def _stacked(self) -> bool:
        """Whether the factors are those of several participants, which need equal blocks of
        rows.
        """
        return any(module.a is not None and module.a.dim() == 3 for module in self.adapted)


def real_rows(mask: Tensor) -> Tensor:
    """Which of batch·length are no padding; with as much padding after them as makes the number a
    multiple of ROWS.
    """
    flat = mask.flatten().bool()
    real, rest = flat.nonzero()[:, 0], (~flat).nonzero()[:, 0]
    return torch.cat([real, rest[: -len(real) % ROWS]])


@dataclass(frozen=True)
class Path:
    """How a model is trained: `layers`, or transformers where that is None; and why."""

    layers: Decoder | Encoder | None
    why: str


def choose(model: Any, processes: int = 1) -> Path:
    """The path for a frozen model with its adapted layers in place, nothing attached. processes:
    that keep it in shards.
    """
    kind = str(model.config.model_type)
    if processes > 1:
        return Path(
            None,
            f"transformers: weights in shards among {processes} processes are whole in its own "
            "layers only",
        )
    if (reason := against(model.config)) is not None:
        return Path(None, f"transformers: {reason}")
    try:
        layers = Decoder(model) if kind in DECODERS else Encoder(model)
        gap = _gap(model, layers)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        return Path(None, f"transformers: its {kind} is not as expected ({type(error).__name__})")
    most = NEAR.get(next(model.parameters()).dtype, 0.0)
    if not gap <= most:
        return Path(
            None,
            f"transformers: Tequio's layers differ from it by {gap:.1e} of the norm, over "
            f"{most:.0e}",
        )
    return Path(
        layers,
        f"layers of Tequio's own for {kind}, up to {LONGEST} tokens; longer texts: transformers",
    )


def against(config: Any) -> str | None:
    """Why a model of this configuration goes the way of transformers;

    None where only its numbers could say so.
    """
    kind = str(config.model_type)
    if kind not in DECODERS + ENCODERS:
        return f"models of type {kind} have no layers of Tequio's own"
    return _odd(config)


def frozen_output(output: nn.Module) -> bool:
    """Whether the loss can be made in parts: an output layer without bias that nothing trains."""
    return not isinstance(output, AdaptedLinear) and getattr(output, "bias", None) is None


def _odd(config: Any) -> str | None:
    """What in a configuration these layers do not do."""
    act = getattr(config, "hidden_act", "")
    if act not in ("silu", "gelu"):
        return f"activation {act}"
    window = getattr(config, "sliding_window", None)
    if window is not None and window < LONGEST and getattr(config, "use_sliding_window", True):
        return f"a window of {window} tokens"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "an encoder that decodes"
    return None


def _gap(model: nn.Module, layers: Decoder | Encoder) -> float:
    """How far the last hidden states of eight tokens and of five are from transformers' own, of
    their norm.
    """
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, int(config.vocab_size), (2, 8), generator=generator).to(
        next(model.parameters()).device
    )
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    body: Any = model.model if isinstance(layers, Decoder) else model
    with torch.inference_mode():
        settings = {"use_cache": False} if isinstance(layers, Decoder) else {}
        theirs = (
            body(input_ids=ids, attention_mask=mask, **settings)
            .last_hidden_state[mask.bool()]
            .float()
        )
        ours = layers.hidden(ids, mask)[mask.bool()].float()
    return float((ours - theirs).norm() / theirs.norm())
