"""The model card of an exported model:

Hugging Face's fields at the head, then how it was made and how to load it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tequio.app.models.agreement import Agreement
from tequio.app.models.open import Opened
from tequio.participant.export import hub_id

Form = Literal["adapter", "merged"]
LICENCES = {  # identifiers that the hub takes as they are
    "afl-3.0",
    "agpl-3.0",
    "apache-2.0",
    "bigscience-bloom-rail-1.0",
    "bigscience-openrail-m",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "eupl-1.2",
    "gemma",
    "gpl-3.0",
    "isc",
    "lgpl-3.0",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "mit",
    "mpl-2.0",
    "openrail",
    "unlicense",
    "zlib",
}
UNKNOWN = ("", "not stated", "unknown", "none")


def card_text(
    opened: Opened,
    found: Mapping[str, Any],
    form: Form = "adapter",
    rank: int | None = None,
    agreement: Agreement | None = None,
) -> str:
    """Return the card as Markdown.

    Args:
        opened: the model.
        found: the field `co2_eq_emissions`; its `emissions` are None where they are not known.
        form: an adapter, or a merged model.
        rank: of the adapter.
        agreement: with the original, where it was measured.

    No path of a machine is in it: a base that is a folder is called by the folder's last name.
    """
    config, base = opened.config, opened.config.base
    task = "text-classification" if config.task.kind == "classification" else "text-generation"
    hub = hub_id(base.model)
    head = [
        *([f"base_model: {hub}"] if hub else []),
        f"library_name: {'peft' if form == 'adapter' else 'transformers'}",
        f"pipeline_tag: {task}",
        *_licence(base.licence),
        f"tags: [{'lora, ' if form == 'adapter' else ''}federated-learning, tequio]",
    ]
    carbon = "not known: not everybody says where its electricity comes from"
    if found["emissions"] is not None:
        head += [
            "co2_eq_emissions:",
            *(f"  {key}: {json.dumps(value)}" for key, value in found.items()),
        ]
        carbon = f"about {found['emissions']:.3g} g CO2e ({found['source']})"
    what = f"An adapter of rank {rank} for" if form == "adapter" else "A whole model, made of"
    lines = [
        *("---", *head, "---", "", f"# {config.name}: {opened.name}", ""),
        f"{what} `{shown(base.model)}` (licence as stated: {base.licence}), fine-tuned by a "
        f"federation of {len(config.participants)} with Tequio. Licences of the data: see the "
        "run's report.",
        *("", f"Agreement with the original model: {agreement_words(agreement)}."),
        *("", f"Carbon: {carbon}.", ""),
    ]
    return "\n".join([*lines, *_usage(opened, form), ""])


def shown(base: str) -> str:
    """Return what a card calls the base: its hub id, or the last name of its folder or file."""
    return hub_id(base) or Path(base).expanduser().name


def agreement_words(agreement: Agreement | None) -> str:
    """Return the measured agreement as a clause."""
    if agreement is None:
        return "not measured (no validation data at hand)"
    if agreement.equal is not None:
        return (
            f"the same answer on {100 * agreement.equal:.1f} % of {agreement.count} validation "
            "texts"
        )
    loss, now = agreement.loss or 0.0, agreement.exported or 0.0
    return (
        f"loss {now:.4f} instead of {loss:.4f} ({now - loss:+.4f}) on {agreement.count} blocks "
        "of validation text"
    )


def _licence(stated: str) -> list[str]:
    """Return the licence as the hub takes it; nothing where it is not known."""
    if stated.strip().lower() in UNKNOWN:
        return []
    slug = re.sub(r"[^a-z0-9.]+", "-", stated.strip().lower()).strip("-")
    slug = (
        slug
        if slug in LICENCES
        else next((known for known in LICENCES if known == slug.replace("-", "")), slug)
    )
    return (
        [f"license: {slug}"]
        if slug in LICENCES
        else ["license: other", f"license_name: {slug or 'other'}"]
    )


def _usage(opened: Opened, form: Form) -> list[str]:
    """Return Python that loads what lies beside the card."""
    labelled = opened.config.task.kind == "classification"
    if form == "merged" and labelled:
        return [
            "## Use",
            "",
            'Run `python load.py "a text"` in this folder, or in Python:',
            *(
                "",
                "```python",
                "from load import classify",
                "",
                'print(classify(["a text"]))',
                "```",
                "",
            ),
            '`pipeline("text-classification", model=FOLDER, trust_remote_code=True)` gives the '
            "same answers: it runs",
            "`load.py`. The head works on the mean of the last hidden states, and the sequence "
            "classifiers of",
            "`transformers` pool otherwise, so `AutoModelForSequenceClassification` refuses this "
            "folder.",
        ]
    auto = "AutoModel" if labelled else "AutoModelForCausalLM"
    if form == "merged":
        return [
            "## Use",
            *("", "```python", f"from transformers import {auto}, AutoTokenizer", ""),
            f'model, tokenizer = {auto}.from_pretrained("."), AutoTokenizer.from_pretrained(".")',
            "```",
        ]
    base = hub_id(opened.config.base.model)
    return [
        "## Use",
        *(
            "",
            "```python",
            "from peft import PeftModel",
            f"from transformers import {auto}, AutoTokenizer",
            "",
        ),
        f'base = "{base}"'
        if base
        else f'base = "the folder of {shown(opened.config.base.model)} on your machine"',
        f'model = PeftModel.from_pretrained({auto}.from_pretrained(base), ".")',
        *("tokenizer = AutoTokenizer.from_pretrained(base)", "```"),
        *(("", "`head.json` says how `head.safetensors` is applied.") if labelled else ()),
    ]
