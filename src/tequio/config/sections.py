"""Tables of federation.toml that say what is trained, one class per table: base, task, adapter,
rounds, centre, roster.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from tequio.config.fields import (
    Count,
    File,
    Name,
    Positive,
    Rate,
    Section,
    Share,
    Unfit,
    Words,
    printable,
    refuse,
    short_enough,
)
from tequio.core.reason import Reason

MAIN = "main"  # what [base] is called on the roster


def _modules(value: Any) -> Any:
    """Read "attention" and "all" as lists of one."""
    return [value] if value in ("attention", "all") else value


Modules = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    Field(min_length=1),
    BeforeValidator(_modules, json_schema_input_type=list[str] | Literal["attention", "all"]),
]


class BaseSection(Section):
    """[base] The open model from which everybody starts."""

    model: Annotated[
        str,
        Field(
            min_length=1,
            description="Base model: a Hugging Face id, a folder with `config.json`, tokenizer and "
            "`*.safetensors`, or a `.gguf` file. Across a network a participant opens a path only "
            "where the coordinator's files are.",
        ),
        AfterValidator(printable),
    ]
    licence: Annotated[
        Words,
        Field(
            description="Licence of the base, as declared; ledger and report repeat it (at most "
            "2,048 bytes). Nobody checks it for you."
        ),
    ] = "not stated"
    dtype: Annotated[
        Literal["auto", "bfloat16", "float32"],
        Field(
            description="Precision of the frozen base; `auto` is bfloat16 where the GPU or CPU "
            "computes in it, else float32. Trained weights are always float32."
        ),
    ] = "auto"


class FurtherBase(BaseSection):
    """[[bases]] Further bases, such as smaller ones for smaller machines.

    On the roster, `base = NAME`
    says which participant holds which.
    """

    name: Annotated[
        Name, Field(description="Name of this base on the roster. `main` is `[base]` itself.")
    ]
    modules: Annotated[
        Modules | None,
        Field(
            description="As `adapter.modules`, where these layers have other names in this base. "
            "Unset: as in `[adapter]`."
        ),
    ] = None


class TaskSection(Section):
    """[task] The task that everybody learns, and the labels of a classification."""

    kind: Annotated[
        Literal["classification", "causal"],
        Field(description="`classification` (text to label) or `causal` (language model)."),
    ]
    labels: Annotated[
        dict[str, str] | list[str],
        Field(
            description="Labels of a classification, two or more. In a table, label = description, "
            "the embedding of the description starts the head and labels are sorted; with a "
            "list the head starts at zero, in the order given."
        ),
    ] = Field(default_factory=list)
    max_tokens: Annotated[
        int,
        Field(
            ge=4,
            description="Longest text, in tokens. Classification cuts longer texts and counts "
            "them; causal documents are joined and cut into blocks of this length. A pair or "
            "chat is never split: it loses its oldest exchanges, then the start of its "
            "question down to a quarter of this length, and is left out (and counted) if it "
            "still does not fit.",
        ),
    ] = 128

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_in_order(cls, labels: Any) -> Any:
        if not isinstance(labels, dict | list):
            raise Unfit(Reason("labels-no-table"))
        if not all(
            isinstance(x, str) for x in (labels.values() if isinstance(labels, dict) else labels)
        ):
            raise Unfit(Reason("labels-no-text"))
        return dict(sorted(labels.items())) if isinstance(labels, dict) else labels

    @model_validator(mode="after")
    def _labels_fit(self) -> TaskSection:
        names = self.label_names()
        refuse(
            (
                self.kind == "classification" and len(set(names)) < 2,
                Reason("labels-too-few"),
            ),
            (
                len({n.strip() for n in names}) < len(names),
                Reason("label-twice"),
            ),
            (any(not n.strip() for n in names), Reason("label-empty")),
        )
        for name in names:
            try:
                short_enough(name)
            except Unfit as error:
                raise Unfit(Reason("label-too-long", error.reason.facts)) from None
        refuse((self.kind == "causal" and names, Reason("labels-of-causal")))
        return self

    def label_names(self) -> tuple[str, ...]:
        """The labels in the order of the head: as listed, or sorted where they are a table."""
        return tuple(self.labels)


class AdapterSection(Section):
    """[adapter] Participants train LoRA factors or whole weights of these linear layers."""

    kind: Annotated[
        Literal["lora", "full"],
        Field(
            description="`lora` trains factors of the named layers; `full` trains their whole "
            "weights, with `stack` and `fresh` only, and does not use `ranks`."
        ),
    ] = "lora"
    modules: Annotated[
        Modules,
        Field(
            description="Linear layers that get an adapter, by the last part of their name (`query`) or in "
            'full. `"attention"` or `"all"` chooses those of the base\'s family, never the output '
            "layer."
        ),
    ]
    ranks: Annotated[
        list[Count],
        Field(
            min_length=1,
            description="The ladder of LoRA ranks. Each participant gets the largest that its "
            "hardware finishes in time.",
        ),
    ] = Field(default=[2, 4, 8, 16])
    scale: Annotated[
        Positive, Field(description="The factor s in s·B·A (LoRA's α/r), the same for every rank.")
    ] = 2.0


class TrainSection(Section):
    """[train] Rounds, local training, and the pace."""

    rounds: Annotated[
        Count, Field(description="Most rounds of the run; `patience` may end it earlier.")
    ] = 10
    local_epochs: Annotated[
        Positive,
        Field(
            description="Passes over its own training data that a participant makes per round; "
            "fractions are allowed."
        ),
    ] = 1.0
    max_steps: Annotated[
        Count, Field(description="Most local steps per round, whatever the epochs say.")
    ] = 200
    min_steps: Annotated[
        Count,
        Field(
            description="Fewest local steps per round, even where they do not fit `round_seconds`."
        ),
    ] = 2
    batch_size: Annotated[Count, Field(description="Texts per step (causal: blocks).")] = 8
    learning_rate: Annotated[
        Rate, Field(description="Learning rate of the participants' AdamW in the first round.")
    ] = 3e-3
    final_rate: Annotated[
        Share,
        Field(
            description="Learning rate of the last round as a share of the first, linear in "
            "between."
        ),
    ] = 0.1
    round_seconds: Annotated[
        Positive | None,
        Field(
            description="Time that a round may take, in seconds. It sizes ranks and steps before the run and "
            'cuts nobody off. With `pace = "buffered"` it is the length of a window and sizes '
            "nothing."
        ),
    ] = None
    patience: Annotated[
        Count,
        Field(
            description="Rounds in a row without progress on validation, or rejected by the gate, "
            "after which the run ends."
        ),
    ] = 3
    cohort: Annotated[
        Count | None,
        Field(
            description="Participants that are drawn to train in each round, besides the centre; "
            "as many, drawn once, evaluate. Unset: all. Not with `q_ffl` and `term`."
        ),
    ] = None
    pace: Annotated[
        Literal["rounds", "buffered"],
        Field(
            description="`rounds` wait for everybody, and slow participants make fewer steps. "
            "`buffered` has windows of `round_seconds`: slow participants make all their "
            "steps and count in the window in which they arrive (with `stack` and `fresh` "
            "only)."
        ),
    ] = "rounds"
    buffer: Annotated[
        Count | None,
        Field(
            description="Buffered pace: fewest replies with which a window makes a step; fewer "
            "wait for the next window. Unset: 1."
        ),
    ] = None
    quorum: Annotated[
        Count | None,
        Field(
            description="Participants that must be connected before a run across a network begins; "
            "later ones join at the next round. A round with fewer usable replies makes no "
            "step and is tried again (on one machine it ends the run). Unset: all to begin, 1 "
            "per round. Buffered: only to begin."
        ),
    ] = None
    lockstep: Annotated[
        Count,
        Field(
            description="Participants on one machine that make their steps together over one pass "
            "through the base (docs/how-a-round-works.md says when this pays). The last bits "
            "of a result depend on it. It has no effect across a network, with local terms or "
            "methods, whole weights, or texts over 512 tokens."
        ),
    ] = 1

    @model_validator(mode="after")
    def _steps_fit(self) -> TrainSection:
        refuse(
            (
                self.min_steps > self.max_steps,
                Reason("steps-reversed", {"least": self.min_steps, "most": self.max_steps}),
            ),
            (
                self.pace == "buffered" and self.round_seconds is None,
                Reason("buffered-without-window"),
            ),
            (
                self.pace == "rounds" and self.buffer is not None,
                Reason("buffer-in-rounds", {"buffer": self.buffer}),
            ),
        )
        return self


class CentreSection(Section):
    """[centre] The central resource trains on public data too.

    These keys say how much it counts.
    """

    data: Annotated[
        File,
        Field(
            description="Public data, one file, with the columns `text`, `label`, `prompt`, "
            "`response` as the task needs."
        ),
    ]
    licence: Annotated[Words, Field(description="Licence of the public data, as declared.")] = (
        "not stated"
    )
    federated_share: Annotated[
        Share, Field(description="λ in λ·Δ_participants + (1 − λ)·Δ_centre, a share.")
    ] = 0.85
    first: Annotated[
        int,
        Field(
            ge=0,
            description="Rounds of `train.rounds` that the centre trains alone before the "
            "participants begin; the learning rate then starts again.",
        ),
    ] = 0
    max_train: Annotated[
        Count | None, Field(description="Most training examples of the centre. Unset: all.")
    ] = None
    tokens_per_second: Annotated[
        Positive | None,
        Field(description="Declared training speed of the centre, in tokens/s. Unset: no limit."),
    ] = None
    steps: Annotated[
        Count | None,
        Field(
            description="Local steps of the centre per round. Unset: as many as the median "
            "participant."
        ),
    ] = None


class RosterEntry(Section):
    """[[participants]] The roster.

    In a simulation every participant's own file is on this machine.
    """

    name: Annotated[
        Name,
        Field(
            description="Name of the participant; unique, and equal to `name` in its own file. Not "
            "`centre`."
        ),
    ]
    file: Annotated[
        File | None,
        Field(description="The participant's `participant.toml`, where it runs on this machine."),
    ] = None
    base: Annotated[
        Name,
        Field(description="The base that the participant holds: `main`, or a name of `[[bases]]`."),
    ] = MAIN
