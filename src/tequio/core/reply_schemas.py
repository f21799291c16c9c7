"""The schemas of what participants send: one for each kind of reply, and for each body that is
JSON.

`replies` applies them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tequio.core.bounds import LARGEST, check_text
from tequio.core.reason import CODE

MOST_LOSS = 1e6  # nats: a cross-entropy above it is no model's
LEAST_LOSS = -1e-3  # nats: a cross-entropy is not negative; this much is rounding
MOST_WATTS = 1e5  # of all machines of one participant: ten servers with eight accelerators each
MOST_AMOUNT = 1e12  # of money, in any currency
MOST_SECONDS = 30 * 86400.0  # of one piece of work
SPLITS = ("train", "validation", "test")


def _check_name(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a name holds a character that cannot be printed")
    return check_text(text, 128)


Text = Annotated[str, AfterValidator(check_text)]
Name = Annotated[str, AfterValidator(_check_name)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Loss = Annotated[float, Field(ge=LEAST_LOSS, le=MOST_LOSS, allow_inf_nan=False)]
Difference = Annotated[float, Field(ge=-MOST_LOSS, le=MOST_LOSS, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=MOST_AMOUNT, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False)]
Joules = Annotated[float, Field(ge=0, le=MOST_WATTS * MOST_SECONDS, allow_inf_nan=False)]


class Schema(BaseModel):
    """A table: unknown keys are errors, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EnergySchema(Schema):
    """An `Energy`: nothing negative, and no more joules than machines can draw in that time."""

    joules: Joules
    seconds: Seconds
    method: Name
    boundary: Name
    uncertainty: Annotated[float, Field(ge=0, le=100)]
    coverage: Annotated[float, Field(ge=0, le=1.001)]
    began: Name
    intensity: Annotated[float, Field(ge=0, le=1e5)] | None
    pue: Annotated[float, Field(ge=1, le=10)]
    embodied: Amount | None
    hosted: Joules | None

    @model_validator(mode="after")
    def _plausible(self) -> EnergySchema:
        if max(self.joules, self.hosted or 0.0) > MOST_WATTS * max(1.0, self.seconds):
            raise ValueError(f"more than {MOST_WATTS:g} watts")
        return self


class MoneySchema(Schema):
    """A `Money`."""

    amount: Amount
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class ReplySchema(Schema):
    """The fields of all replies: no update, no figure, no body unless the kind of request asks for
    one.
    """

    steps: Count
    tokens: Count
    examples: Count
    note: Text
    energy: EnergySchema | None
    money: MoneySchema | None
    metrics: Annotated[dict[str, Any], Field(max_length=0)]
    slices: Annotated[dict[str, Any], Field(max_length=0)]
    forms: Annotated[int, Field(ge=0, le=0)]  # how many of update, payload and parts came
    body: Annotated[str, Field(max_length=0)]


class TrainingMetrics(Schema):
    """Means of the first and the last steps, of the local objective, which has other terms beside
    the loss.
    """

    loss_first: Difference
    loss_last: Difference


class ValidationMetrics(Schema):
    """Means over the own validation data."""

    loss: Loss
    accuracy: Share | None = None


class TrainSchema(ReplySchema):
    """The reply to `TrainRequest`: one update, in one of its forms."""

    steps: Positive
    examples: Positive
    metrics: TrainingMetrics  # type: ignore[assignment]
    forms: Annotated[int, Field(ge=1, le=1)]


class EvaluateSchema(ReplySchema):
    """The reply to `EvaluateRequest`."""

    metrics: ValidationMetrics  # type: ignore[assignment]


class BodySchema(ReplySchema):
    """The reply to `DescribeRequest` and `PersonaliseRequest`: a body, which is read where it
    is used.
    """

    body: str


class SumSchema(ReplySchema):
    """The reply to `SumRequest`: bytes that tell nothing of one participant, and no count of its
    texts or tokens.
    """

    tokens: Annotated[int, Field(ge=0, le=0)]
    examples: Annotated[int, Field(ge=0, le=0)]
    forms: Annotated[int, Field(ge=1, le=1)]


class ReasonSchema(Schema):
    """A `Reason` in its recorded form."""

    code: Annotated[str, Field(pattern=rf"^{CODE}$", max_length=64)]
    facts: Annotated[dict[Name, Any], Field(max_length=16)]


class DataSchema(Schema):
    """Counts of a participant's data, `Splits.facts` and what its file states."""

    rows: Count | None = None
    counts: dict[Literal["train", "validation", "test"], Count] | None = None
    balance: dict[Literal["train", "validation", "test"], dict[Text, Count]] | None = None
    dropped: dict[Name, Count] | None = None
    long_texts: Count | None = None
    warnings: Annotated[list[Text | ReasonSchema], Field(max_length=16)] | None = (
        None  # texts are of earlier versions
    )
    cut: Count | None = None
    too_long: Count | None = None
    licence: Text | None = None
    consent: Text | None = None


class BatchesSchema(Schema):
    """Items by split."""

    train: Positive
    validation: Positive
    test: Positive


class ProfileSchema(Schema):
    """A `ParticipantProfile`; its hardware is read by the schema of participant.toml."""

    name: Name | None = None
    hardware: Annotated[dict[Name, Text | float | int | bool | None], Field(max_length=32)]
    batches: BatchesSchema
    mean_tokens: Annotated[float, Field(gt=0, le=1e9)]
    data: DataSchema
    speed: Annotated[float, Field(gt=0, le=1e12)] | None


class DescribedSchema(Schema):
    """The body of the reply to `DescribeRequest`."""

    spec: Name
    commitment: Name
    profile: ProfileSchema = Field(alias="told")


class ScoresSchema(Schema):
    """A `Scores`."""

    loss: Loss
    examples: Positive
    accuracy: Share | None = None


def _given(value: Any) -> Any:
    """Return what is there.

    Raises ValueError for null: the key may be missing, and then it has its default.
    """
    if value is None:
        raise ValueError("null")
    return value


Given = BeforeValidator(_given)


class IntervalSchema(Schema):
    """An `Interval`."""

    mean: Difference
    low: Difference
    high: Difference


class PairsSchema(Schema):
    """A `Pairs`."""

    both: Count
    better: Count
    worse: Count
    neither: Count


class GainSchema(Schema):
    """What one model gains over another."""

    loss: IntervalSchema | None
    accuracy: IntervalSchema | None
    log_ratio: IntervalSchema | None = None
    pairs: PairsSchema | None = None


class LeadSchema(Schema):
    """By how much one model leads another, the standard error of that, and the other one's loss."""

    lead: Difference
    error: Difference
    alone: Amount | None = None


class ChoiceSchema(Schema):
    """By which rule the model was chosen."""

    rule: Literal["shrunk", "clear_lead", "lowest_loss", "within_one_error"]
    best: Name | None = None
    lead: Difference | None = None
    error: Difference | None = None
    texts: Count | None = None
    share: Share | None = None
    favoured: Share | None = None
    over_local: LeadSchema | None = None


class GeneralSchema(Schema):
    """How the general model comes about: from both models' answers, or by how far it lies from the
    shared model, 0, to the kept one, 1.
    """

    way: Literal["answers", "weights"] = "weights"
    share: Annotated[Share | None, Given] = None


class FitSchema(Schema):
    """How a fit ended."""

    learning_rate: Amount
    step: Count
    diverged: Annotated[list[Amount], Field(max_length=64)]


class CostSchema(Schema):
    """What the local model took, or nothing."""

    steps: Count | None = None
    tokens: Count | None = None
    energy: EnergySchema | None = None
    money: MoneySchema | None = None


class BaselineSchema(Schema):
    """The most frequent class."""

    label: Count
    accuracy: Share
    balanced_accuracy: Share


class ClassesSchema(Schema):
    """Metrics by class."""

    balanced_accuracy: dict[Name, Share]
    macro_f1: dict[Name, Share]
    baseline: BaselineSchema
    support: list[Count | None]
    right: dict[Name, list[Annotated[list[Count], Field(min_length=2, max_length=2)] | None]]
    confusion: list[Annotated[list[Count], Field(min_length=3, max_length=3)]]


class ModelScores(Schema):
    """Test scores of the models.

    The general one may be missing, as in records of before, but it is not null.
    """

    base: ScoresSchema
    local: ScoresSchema
    shared: ScoresSchema
    personal: ScoresSchema
    general: Annotated[ScoresSchema | None, Given] = None


class GainsSchema(Schema):
    """The three comparisons."""

    personal_over_local: GainSchema
    personal_over_base: GainSchema
    shared_over_local: GainSchema


class PersonalSchema(Schema):
    """The body of the reply to `PersonaliseRequest`.

    Keys that records of before do not have may be missing.
    """

    name: Name
    chosen: Name
    choice: ChoiceSchema | None = None
    general: Annotated[GeneralSchema | None, Given] = None
    candidates: Annotated[dict[Name, ScoresSchema], Field(min_length=1, max_length=256)]
    test: ModelScores
    gains: GainsSchema
    benefit: Annotated[float, Field(ge=-1e12, le=1.001)] | None
    fits: Annotated[dict[Name, FitSchema], Field(max_length=64)]
    local_cost: CostSchema | None = None
    energy: EnergySchema
    money: MoneySchema | None = None
    seconds: Seconds
    classes: ClassesSchema | None = None
    cut: Text | ReasonSchema | None = None  # a text is of an earlier version
    digest: Digest
    local_digest: Digest
    record_version: Annotated[int, Field(ge=1, le=1000)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> PersonalSchema:
        if self.chosen not in self.candidates:
            raise ValueError("the chosen model is none of the candidates")
        return self
