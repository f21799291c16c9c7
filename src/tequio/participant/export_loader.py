"""The script that a merged classifier's folder carries, so that its head is used as it was
trained.
"""

SCRIPT = '''"""Classify texts with the model in this folder. It needs torch, safetensors and transformers only.

    python load.py "the train was late again"

Or: pipeline("text-classification", model="this folder", trust_remote_code=True)

The head works on the mean of the last hidden states at unit length. The sequence classifiers of transformers
pool otherwise, so AutoModelForSequenceClassification refuses this folder.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AUTO, AutoTokenizer, TextClassificationPipeline
from transformers.utils import cached_file, logging

FOLDER = Path(__file__).resolve().parent


def load(folder=FOLDER):
    """Return model, tokenizer, head and labels."""
    logging.set_verbosity_error()
    model = AUTO.from_pretrained(folder, dtype=torch.float32).eval()
    labels = json.loads((folder / "head.json").read_text(encoding="utf-8"))["labels"]
    return model, AutoTokenizer.from_pretrained(folder), load_file(folder / "head.safetensors"), labels


def logits(model, batch, head):
    """Return the head's logits, (texts x labels)."""
    mask = batch["attention_mask"].unsqueeze(-1).float()
    hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    pooled = torch.nn.functional.normalize((hidden.float() * mask).sum(1) / mask.sum(1).clamp(min=1), dim=-1)
    return SCALE * pooled @ head["head.weight"].to(pooled.device).T + head["head.bias"].to(pooled.device)


class HeadPipeline(TextClassificationPipeline):
    """The text classification of transformers, with this head."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.head = load_file(cached_file(self.model.name_or_path, "head.safetensors"))

    def check_model_type(self, supported_models):
        """Accept the encoder: the head is ours."""

    def _forward(self, inputs):
        return {"logits": logits(self.model, inputs, self.head)}


def classify(texts, loaded=None):
    """Return one label -> probability table for each text, the most probable label first."""
    model, tokenizer, head, labels = loaded or load()
    batch = tokenizer(list(texts), return_tensors="pt", padding=len(texts) > 1, truncation=True)
    with torch.no_grad():
        shares = torch.softmax(logits(model, batch, head), dim=1)
    rows = [dict(zip(labels, row)) for row in shares.tolist()]
    return [dict(sorted(row.items(), key=lambda item: -item[1])) for row in rows]


if __name__ == "__main__":
    for row in classify(sys.argv[1:] or [line.strip() for line in sys.stdin if line.strip()]):
        print(json.dumps(row, ensure_ascii=False))
'''


def loader_script(auto: str, scale: str = "10") -> str:
    """Return the script for a model that the class `auto` of transformers loads, with logits of
    that scale.
    """
    return SCRIPT.replace("AUTO", auto).replace("SCALE", scale)
