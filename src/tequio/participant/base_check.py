"""Check a base before training: each problem gives one BaseModelError, or is handled and noted."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tequio.core.errors import BaseModelError
from tequio.core.texts.words import refusal
from tequio.participant.base_files import BaseFiles, cannot_load, first_line, read_header, read_json
from tequio.participant.base_sizes import check_counts

Kind = Literal["classification", "causal"]
NO_LIMIT = 1_000_000
ENDS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "[SEP]",
)
MEDIA = ("image", "audio", "video", "vision", "soft_token", "speech")
METHODS = {
    "gptq": "GPTQ",
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "fp8": "FP8",
    "mxfp4": "MXFP4",
}
QUANTISED = {
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
    ".SCB": "bitsandbytes",
    ".absmax": "bitsandbytes",
    ".quant_state": "bitsandbytes",
}
WORDS = "one two three four five six"


def read_config(files: BaseFiles) -> Any:
    """Return the configuration of a base.

    Raises BaseModelError where it is missing, damaged or quantised.
    """
    from transformers import AutoConfig

    raw = read_json(files.folder / "config.json")
    method = raw.get("quantization_config")
    if method:
        named = (
            str(method.get("quant_method", "") if isinstance(method, dict) else "")
            or "bitsandbytes"
        )
        raise refusal(
            BaseModelError,
            "base-quantised",
            name=files.name,
            method=METHODS.get(named.lower(), named),
        )
    if (files.folder / "quantize_config.json").is_file():  # how AutoGPTQ marked its folders
        raise refusal(BaseModelError, "base-quantised", name=files.name, method="GPTQ")
    check_counts(files.name, raw)
    try:
        return AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
    except Exception as error:
        if raw.get("auto_map"):
            raise refusal(BaseModelError, "base-is-code", name=files.name) from None
        raise cannot_load(files.name, error) from None


def text_config(config: Any) -> Any:
    """Return the part of a configuration that describes the text model; of most bases it is the
    whole.
    """
    return config if config.is_encoder_decoder else config.get_text_config()


def model_class(name: str, config: Any, kind: Kind) -> Any:
    """Return the class of transformers that loads this base for a task of `kind`.

    Raises BaseModelError if none does.
    """
    import transformers as t
    from transformers.models.auto import modeling_auto as auto

    family = str(config.model_type)
    encoder = str(auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(family, ""))
    if kind == "classification" and encoder.endswith("EncoderModel"):  # of T5 and its kin
        return t.AutoModelForTextEncoding
    if config.is_encoder_decoder or (kind == "causal" and encoder.endswith("EncoderModel")):
        code = "base-of-other-task" if kind == "classification" else "base-of-other-language-task"
        raise refusal(BaseModelError, code, name=name, family=family)
    if kind == "classification":
        if type(config) in t.MODEL_MAPPING:
            return t.AutoModel
    elif type(config) in t.MODEL_FOR_CAUSAL_LM_MAPPING:
        return t.AutoModelForCausalLM
    elif (
        type(config) in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        and text_config(config) is not config
    ):
        return t.AutoModelForImageTextToText
    raise refusal(BaseModelError, "base-of-unknown-family", name=name, family=family, task=kind)


def max_positions(model: nn.Module, config: Any) -> int:
    """Return how many tokens a base reads at most.

    The RoBERTa family numbers positions from padding_idx + 1 and counts the reserved ones in
    max_position_embeddings: 514 for 512 tokens.
    """
    stated = getattr(text_config(config), "max_position_embeddings", None)
    limit = stated if isinstance(stated, int) and stated > 0 else NO_LIMIT
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) and path.rsplit(".", 1)[-1] == "position_embeddings":
            reserved = 0 if module.padding_idx is None else max(2, module.padding_idx + 1)
            limit = min(limit, module.num_embeddings - reserved)
    return limit


def check_weight_files(name: str, paths: Sequence[Path]) -> set[str]:
    """Check that each file is whole and not quantised; return the types of its numbers, as
    safetensors names them.
    """
    types: set[str] = set()
    for path in paths:
        header, data = read_header(name, path)
        tensors = {key: row for key, row in header.items() if key != "__metadata__"}
        try:
            end = max([0, *(int(row["data_offsets"][1]) for row in tensors.values())])
            types |= {str(row["dtype"]) for row in tensors.values()}
        except (KeyError, TypeError, ValueError, IndexError):
            raise refusal(BaseModelError, "base-file-damaged", name=name, file=path.name) from None
        if end != data:
            raise refusal(BaseModelError, "base-file-damaged", name=name, file=path.name)
        for ending, method in QUANTISED.items():
            if any(key.endswith(ending) or f"{ending}." in key for key in tensors):
                raise refusal(BaseModelError, "base-quantised", name=name, method=method)
    return types


def check_whole(name: str, missing: Iterable[str]) -> None:
    """Refuse weights that the library would have filled in at random."""
    absent = sorted(key for key in missing if "pooler." not in key)  # a pooler is not used
    if absent:
        raise refusal(
            BaseModelError, "base-incomplete", name=name, count=len(absent), tensor=absent[0]
        )


def prepare_tokenizer(name: str, tokenizer: Any, model: Any, kind: Kind) -> tuple[str, ...]:
    """Give the tokenizer what training needs; return a sentence for each thing that was chosen
    here.

    Raises BaseModelError where the tokenizer knows tokens for which the model has no row of
    embeddings, or where a causal base has no token that ends a text.
    """
    rows, vocabulary = embedding_rows(name, model), tokenizer.get_vocab()
    beyond = {token for token, i in vocabulary.items() if i >= rows}
    typed = {t for t in beyond if not any(word in t.lower() for word in MEDIA)} - {
        tokenizer.pad_token
    }
    if typed:
        raise refusal(
            BaseModelError, "tokenizer-too-large", name=name, tokens=len(tokenizer), rows=rows
        )
    if not vocabulary:
        raise refusal(
            BaseModelError, "base-without-tokens", name=name, family=model.config.model_type
        )
    notes = []
    if kind == "causal" and (tokenizer.eos_token_id is None or tokenizer.eos_token in beyond):
        tokenizer.eos_token = _end_token(
            name, tokenizer, model, {t: i for t, i in vocabulary.items() if i < rows}
        )
        notes.append(f"The tokenizer has no end-of-text token: {tokenizer.eos_token} is used.")
    if tokenizer.pad_token_id is None or tokenizer.pad_token in beyond:
        lowest = min((i, token) for token, i in vocabulary.items())[1]
        tokenizer.pad_token = (
            tokenizer.eos_token or tokenizer.unk_token or tokenizer.sep_token or lowest
        )
        if tokenizer.eos_token is None and tokenizer.pad_token == lowest:
            notes.append(
                f"The tokenizer has no padding token: {lowest} is used, and attention leaves it "
                "out."
            )
    return tuple(notes)


def embedding_rows(name: str, model: Any) -> int:
    """Return for how many tokens a model has embeddings.

    Raises BaseModelError for a model that reads no tokens.
    """
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError, TypeError):
        raise refusal(
            BaseModelError, "base-without-tokens", name=name, family=model.config.model_type
        ) from None


def _end_token(name: str, tokenizer: Any, model: Any, vocabulary: dict[str, int]) -> str:
    """Return a token that can end a text: the one the model's configuration names, or a usual
    one.
    """
    named = text_config(model.config).eos_token_id
    by_id = {i: token for token, i in vocabulary.items()}
    first = named[0] if isinstance(named, list) and named else named
    if (
        isinstance(first, int)
        and first in by_id
        and by_id[first] in tokenizer.all_special_tokens + list(ENDS)
    ):
        return by_id[first]
    for token in (*ENDS, tokenizer.sep_token, tokenizer.bos_token, tokenizer.pad_token):
        if token in vocabulary:
            return str(token)
    raise refusal(BaseModelError, "no-end-of-text", name=name)


def check_runs(name: str, model: Any, tokenizer: Any, kind: Kind) -> int:
    """Run a few tokens through the base as training will; return the width of what comes out.

    Raises BaseModelError where the model needs more than text, or gives something else.
    """
    device = next(model.parameters()).device
    try:
        ids = list(tokenizer(WORDS, add_special_tokens=False)["input_ids"])[:8]
        ids = ids or [tokenizer.pad_token_id] * 4
        batch = torch.tensor([ids, ids], device=device)
        mask = torch.ones_like(batch)
        mask[1, (len(ids) + 1) // 2 :] = 0
        with torch.inference_mode():
            if kind == "causal":
                width = int(
                    model(input_ids=batch, attention_mask=mask, use_cache=False).logits.shape[2]
                )
            else:
                width = int(model(input_ids=batch, attention_mask=mask).last_hidden_state.shape[2])
    except Exception as error:
        facts = {
            "name": name,
            "task": kind,
            "error": type(error).__name__,
            "message": first_line(error),
        }
        raise refusal(BaseModelError, "base-does-not-run", **facts) from None
    return width
