"""Names that other libraries give to our keys, and what differs in meaning:

PEFT, Transformers, Axolotl, LLaMA-Factory, Flower, NVFLARE.
"""

from collections.abc import Mapping
from types import MappingProxyType

_RATE = "train.learning_rate"
_RANKS = "adapter.ranks"
_MODULES = "adapter.modules"
_BATCH = "train.batch_size"
_ROUNDS = "train.rounds"
_EPOCHS = "train.local_epochs"
_TOKENS = "task.max_tokens"
_MODEL = "base.model"
_SCALE_NOTE = "it is alpha / r, not alpha: alpha = 16 with r = 8 is scale = 2"
_RANK_NOTE = "a list, from which each participant gets what its hardware can do: ranks = [8]"
_EPOCH_NOTE = "passes over a participant's texts in each round"
_BATCH_NOTE = "texts per step of one participant; there is no accumulation"
_MODULE_NOTE = "a list of names of linear layers"
_FINAL_NOTE = (
    "the rate of the last round as a share of the first; each round has one rate, with no warm-up"
)

KEYS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("lr", "eta", "lr_rate", "step_size", "client_lr", "local_lr", "base_lr"), (_RATE, "")
        ),
        **dict.fromkeys(("learningrate", "max_lr", "peak_lr"), (_RATE, "")),
        **dict.fromkeys(
            ("lora_alpha", "alpha", "lora_scale", "scaling", "lora_scaling"),
            ("adapter.scale", _SCALE_NOTE),
        ),
        **dict.fromkeys(
            ("r", "rank", "lora_r", "lora_rank", "lora_dim", "lora_n"), (_RANKS, _RANK_NOTE)
        ),
        **dict.fromkeys(
            ("target_modules", "lora_target_modules", "lora_target", "lora_modules"),
            (_MODULES, _MODULE_NOTE),
        ),
        **dict.fromkeys(("target_layers", "layers", "modules_to_train"), (_MODULES, _MODULE_NOTE)),
        **dict.fromkeys(
            ("epochs", "num_epochs", "num_train_epochs", "n_epochs"), (_EPOCHS, _EPOCH_NOTE)
        ),
        **dict.fromkeys(
            ("local_epoch", "client_epochs", "epochs_per_round"), (_EPOCHS, _EPOCH_NOTE)
        ),
        **dict.fromkeys(
            ("batch", "bs", "batchsize", "micro_batch_size", "train_batch_size"),
            (_BATCH, _BATCH_NOTE),
        ),
        **dict.fromkeys(
            ("per_device_train_batch_size", "per_device_batch_size", "minibatch"),
            (_BATCH, _BATCH_NOTE),
        ),
        **dict.fromkeys(
            ("gradient_accumulation_steps", "accumulate_grad_batches"), (_BATCH, _BATCH_NOTE)
        ),
        **dict.fromkeys(
            ("num_rounds", "n_rounds", "communication_rounds", "global_rounds", "comm_round"),
            (_ROUNDS, ""),
        ),
        **dict.fromkeys(
            ("server_rounds", "num_server_rounds", "fl_rounds", "max_rounds"), (_ROUNDS, "")
        ),
        **dict.fromkeys(
            ("local_steps", "steps", "num_steps", "max_train_steps"),
            ("train.max_steps", "a limit per round"),
        ),
        **dict.fromkeys(
            ("warmup", "warmup_steps", "warmup_ratio", "num_warmup_steps"),
            ("train.final_rate", _FINAL_NOTE),
        ),
        **dict.fromkeys(
            ("lr_scheduler", "lr_scheduler_type", "scheduler", "lr_decay"),
            ("train.final_rate", _FINAL_NOTE),
        ),
        **dict.fromkeys(
            ("early_stopping", "early_stopping_patience"),
            ("train.patience", "rounds without progress"),
        ),
        **dict.fromkeys(
            ("num_clients_per_round", "clients_per_round", "fraction_fit"),
            ("train.cohort", "a number, not a share"),
        ),
        **dict.fromkeys(
            ("min_fit_clients", "min_clients", "min_available_clients"), ("train.quorum", "")
        ),
        **dict.fromkeys(("timeout", "round_timeout"), ("train.round_seconds", "in seconds")),
        **dict.fromkeys(
            ("max_length", "max_seq_length", "max_seq_len", "seq_length", "sequence_len"),
            (_TOKENS, ""),
        ),
        **dict.fromkeys(
            ("cutoff_len", "model_max_length", "block_size", "context_length"), (_TOKENS, "")
        ),
        **dict.fromkeys(
            ("model_name", "model_name_or_path", "base_model", "pretrained_model"), (_MODEL, "")
        ),
        **dict.fromkeys(
            ("pretrained_model_name_or_path", "model_id", "model_path", "checkpoint"), (_MODEL, "")
        ),
        **dict.fromkeys(
            ("torch_dtype", "precision", "bf16", "fp16"),
            ("base.dtype", "'auto', 'bfloat16' or 'float32'"),
        ),
        **dict.fromkeys(("task_type",), ("task.kind", "'classification' or 'causal'")),
        **dict.fromkeys(
            ("classes", "class_names", "label_names", "num_labels", "id2label"),
            ("task.labels", "their names"),
        ),
        **dict.fromkeys(
            ("strategy", "aggregator", "aggregation", "aggregation_method"),
            ("algorithm.reduce", ""),
        ),
        **dict.fromkeys(
            ("server_optimizer", "server_optimiser", "server_opt"), ("algorithm.server", "")
        ),
        **dict.fromkeys(
            ("prox_mu", "proximal_mu", "mu", "fedprox_mu"),
            ("local.terms", "terms = { fedprox = 0.01 }"),
        ),
        **dict.fromkeys(
            ("random_seed", "random_state", "manual_seed"), ("seed", "at the top of the file")
        ),
        **dict.fromkeys(
            ("clients", "nodes", "sites", "workers", "parties"),
            ("participants", "[[participants]] for each"),
        ),
        **dict.fromkeys(
            ("text_column", "text_field", "text_col", "dataset_text_field"), ("data.text", "")
        ),
        **dict.fromkeys(
            ("label_column", "label_field", "label_col", "target", "target_column"),
            ("data.label", ""),
        ),
        **dict.fromkeys(
            ("instruction", "input_column", "question", "prompt_column"), ("data.prompt", "")
        ),
        **dict.fromkeys(
            ("output", "answer", "completion", "response_column"), ("data.response", "")
        ),
        **dict.fromkeys(("train_file", "train_path", "train_data"), ("data.train", "")),
        **dict.fromkeys(
            ("file", "filename", "file_name", "data_path", "data_file", "data_files"),
            ("data.path", ""),
        ),
        **dict.fromkeys(
            ("dev", "valid", "val", "validation_file", "eval_file"), ("data.validation", "")
        ),
        **dict.fromkeys(("test_file", "test_path"), ("data.test", "")),
        **dict.fromkeys(
            ("val_size", "val_set_size", "validation_split", "val_split"),
            ("data.validation_share", "a share of 1"),
        ),
        **dict.fromkeys(("test_size", "test_split"), ("data.test_share", "a share of 1")),
        **dict.fromkeys(("max_samples", "max_train_samples", "n_samples"), ("data.max_train", "")),
    }
)
"""Another library's name, in lower case -> (our key with its table, how its meaning differs)."""

TABLES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("lora", "peft", "lora_config", "peft_config", "adapters"), "adapter"),
        **dict.fromkeys(
            ("training", "trainer", "training_arguments", "training_args", "hyperparameters"),
            "train",
        ),
        **dict.fromkeys(("model", "base_model", "backbone"), "base"),
        **dict.fromkeys(("dataset", "datasets"), "data"),
        **dict.fromkeys(("federated", "strategy", "aggregation"), "algorithm"),
    }
)
"""Another library's name of a table -> ours."""


def other_name(name: str, table: bool) -> tuple[str, str] | None:
    """Return (our key with its table, how its meaning differs) for another library's name, or None
    where it is none that we know.
    """
    plain = name.lower().replace("-", "_")
    if table and plain in TABLES:
        return TABLES[plain], "a table"
    return KEYS.get(plain)
