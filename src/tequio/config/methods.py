"""Tables of federation.toml that say by which method, one class per table: algorithm, local terms,
screening, personal models.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tequio.config.fields import (
    MOST_PULLED,
    MOST_TRIED,
    Count,
    File,
    Finite,
    Name,
    Positive,
    Rate,
    Section,
    Share,
    Unfit,
)
from tequio.config.presets import PRESETS
from tequio.core.reason import Reason


class AlgorithmSection(Section):
    """[algorithm] A method by name (`preset`), or its pieces, each with its settings:
    docs/algorithms.md.
    """

    preset: Annotated[
        str | None,
        Field(
            exclude=True,
            json_schema_extra={"enum": [*PRESETS, None]},
            description="A method by its name in the literature: it sets the keys that make it, "
            "and refuses another value beside them (docs/algorithms.md). Unset: the keys below.",
        ),
    ] = None
    reduce: Annotated[
        str,
        Field(
            description="How updates are added up: `stack` (exact for unequal ranks), `fedit` (the "
            "common baseline), `ffa` (A frozen), `rolora` (B and A in turn); against bad "
            "updates `centred_clipping`, `geometric_median`, `trimmed_mean`."
        ),
    ] = "stack"
    weights: Annotated[
        str,
        Field(
            description="How much each update counts: `norm_equalised`, `examples`, `uniform`, "
            "`fednova`; `q_ffl` and `term` count badly served participants more."
        ),
    ] = "norm_equalised"
    server: Annotated[
        str,
        Field(
            description="The server's step: `sgd` (plain, FedAvg), `nesterov` (DiLoCo, for long "
            "runs), `adam`, `yogi`, or `reptile`."
        ),
    ] = "sgd"
    start: Annotated[
        str,
        Field(
            description="How a round starts from the shared model: `fresh` factors, or its best "
            "ones with the rest frozen (`fedex`) or left out (`flexlora`). Not with `fedit`, "
            "`ffa`, `rolora`, `trimmed_mean`; the robust reduces of products not with "
            "`flexlora`."
        ),
    ] = "fresh"
    reduce_settings: Annotated[
        dict[str, Finite],
        Field(
            description="Settings of the reduce. `centred_clipping`: `iterations` 3, `factor` 1. "
            "`geometric_median`: `iterations` 100. `trimmed_mean`: `trim` 0.2. Others have none."
        ),
    ] = Field(default_factory=dict)
    weights_settings: Annotated[
        dict[str, Finite],
        Field(
            description="Settings of the weights. `norm_equalised`: `power` 0.5 (0: one "
            "participant one vote, 1: by examples). `q_ffl`: `q` 1. `term`: `t` 1."
        ),
    ] = Field(default_factory=dict)
    server_settings: Annotated[
        dict[str, Finite],
        Field(
            description="Settings of the server's step. `sgd`: `learning_rate` 1, `momentum` 0; "
            "`nesterov`: 0.7 and 0.9. `adam`, `yogi`: `learning_rate` 0.01, `beta1` 0.9, "
            "`beta2` 0.99, `tau` 0.001. `reptile`: `learning_rate` 0.5."
        ),
    ] = Field(default_factory=dict)
    start_settings: Annotated[
        dict[str, Finite],
        Field(
            description="Settings of the start. None of the built-in ones has any; this is for "
            "pieces of your own."
        ),
    ] = Field(default_factory=dict)
    upload: Annotated[
        str,
        Field(
            description="How an update is coded on its way up: `plain` (float32), `half`, "
            "`quantise` (unbiased, 8, 4 or 2 bits), `eden` (1, 2 or 4 bits), or `topk` with "
            "error feedback (only with `fedit`, `ffa`, `rolora`)."
        ),
    ] = "plain"
    upload_settings: Annotated[
        dict[str, Finite],
        Field(
            description="Settings of the upload's code. `quantise`, `eden`, `topk`: `bits`. "
            "`quantise`: `block` 256. `topk`: `density` 0.01, the share that is sent."
        ),
    ] = Field(default_factory=dict)
    feedback: Annotated[
        Share | None,
        Field(
            description="Error feedback: the participant retains what an upload leaves out, times "
            "this share, and sends it in a later round. With `fedit`, `ffa`, `rolora`. Unset: "
            "1 with `topk`, off with others."
        ),
    ] = None
    download: Annotated[
        str,
        Field(
            description="How the shared model is coded on its way down, as `upload`. The "
            "coordinator sends what the code loses in a later round."
        ),
    ] = "plain"
    download_settings: Annotated[
        dict[str, Finite],
        Field(description="Settings of the download's code, as `upload_settings`."),
    ] = Field(default_factory=dict)
    broadcast_rank: Annotated[
        Count | None,
        Field(
            description="Rank of what is sent back in a round; the exact remainder waits for the "
            "next. Unset: twice the largest rank."
        ),
    ] = None


class LocalSection(Section):
    """[local] What participants minimise besides their own loss, and how a local step is made."""

    terms: Annotated[
        dict[str, Finite],
        Field(
            description="What a step minimises besides the own loss, name = strength (0 is none): "
            "`fedprox` (μ, 0.01 to 0.1), `kl` to the base on public text (β, 0.05 to 0.5), "
            "`replay` of public text (share, 0.05 to 0.2), `transfer` of the centre's "
            "gradient (weight)."
        ),
    ] = Field(default_factory=dict)
    method: Annotated[
        str,
        Field(
            description="How a local step is made: `plain`, or `fomaml`, which trains how good the "
            "model becomes after a step on somebody's own data (twice the time per step)."
        ),
    ] = "plain"
    method_settings: Annotated[
        dict[str, Finite],
        Field(
            description="Settings of the method. `fomaml`: `inner_rate` 0.1, the length of that "
            "step."
        ),
    ] = Field(default_factory=dict)
    data: Annotated[
        File | None,
        Field(
            description="File of public text for `kl` and `replay`, columns as in `centre.data`. "
            "Unset: the centre's training data. A public batch per step is computed besides "
            "the own one. Across a network a participant opens it only where it is the "
            "coordinator's file."
        ),
    ] = None


class TopologySection(Section):
    """[topology] Which participants exchange: all with the coordinator (a star), or peers with
    their
    neighbours.
    """

    kind: Annotated[
        Literal["star", "ring", "complete", "graph"],
        Field(
            description="`star`: all exchange with the coordinator. `ring`, `complete`, `graph`: "
            "peers exchange with their neighbours, without centre, gate and screening, with "
            "`stack`, `uniform`, `sgd`, `fresh` and plain codes; `broadcast_rank` is what "
            "goes along an edge."
        ),
    ] = "star"
    edges: Annotated[
        list[Annotated[list[Name], Field(min_length=2, max_length=2)]],
        Field(
            description='With `graph`: pairs of participants, `[["north", "south"], …]`; each edge '
            "goes both ways."
        ),
    ] = Field(default_factory=list)
    pace: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="γ, the share of the way that a peer moves toward its neighbours. Where "
            "`broadcast_rank` cuts much, 1 can be worse than no exchange: try 0.5.",
        ),
    ] = 1.0


class GateSection(Section):
    """[gate] Public texts on which the general model may not get worse by more than `margin`;
    otherwise the round is rolled back.
    """

    slices: Annotated[
        dict[Name, File],
        Field(
            description="Public texts, name = file. One half of each is the gate, the other is "
            "reserved for the check at the end. Needs `[centre]`."
        ),
    ] = Field(default_factory=dict)
    margin: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="How much worse than the base a slice may surely become, as a share of the "
            "base's error (classification) or loss (causal).",
        ),
    ] = 0.02
    max_examples: Annotated[
        Count,
        Field(
            description="Most examples of a slice at the gate; twice as many in the final check."
        ),
    ] = 100
    interpolate: Annotated[
        int,
        Field(
            ge=0,
            le=101,
            description="Points tried between base and shared model (WiSE-FT), such as 11; the "
            "best that the gate passes is delivered. 0: none.",
        ),
    ] = 0

    @field_validator("interpolate")
    @classmethod
    def _two_ends(cls, value: int) -> int:
        if value == 1:
            raise Unfit(Reason("interpolate-one"))
        return value


class ScreenSection(Section):
    """[screen] The coordinator bounds updates that stand out, notes them ("record") or leaves them
    out ("refuse").
    """

    norm_bound: Annotated[
        Positive | None,
        Field(
            description="Longest update, in multiples of the median norm of the round before at "
            "this round's rate (1: the median); longer ones are cut to it. Unset: off. Not "
            "with weights that give every update one length."
        ),
    ] = None
    cosine: Annotated[
        Annotated[float, Field(ge=-1, le=1)] | None,
        Field(
            description="Smallest cosine of an update with `cosine_to` that raises no alarm; below "
            "0 it points away. Unset: off."
        ),
    ] = None
    cosine_to: Annotated[
        Literal["others", "centre"],
        Field(
            description="`others`: the mean direction of the other participants' updates, which "
            "needs three or more and all of them in memory until the last is in. `centre`: "
            "the centre's update, with nothing retained."
        ),
    ] = "others"
    cosine_action: Annotated[
        Literal["record", "refuse"],
        Field(
            description="`record` writes the alarm to the ledger and the update counts. `refuse` "
            "leaves the update out as well."
        ),
    ] = "record"
    loss: Annotated[
        Annotated[float, Field(ge=0, allow_inf_nan=False)] | None,
        Field(
            description="Largest harm of one update alone to a public slice, relative to the "
            "shared model's error (classification) or loss (causal); more raises an alarm. It "
            "costs the centre one evaluation per update, and all are in memory. Unset: off. "
            "Needs `gate.slices`."
        ),
    ] = None
    loss_action: Annotated[
        Literal["record", "refuse"],
        Field(
            description="As `cosine_action`. Refusing by loss also silences participants whose "
            "domain the slices lack."
        ),
    ] = "record"


class PersonalSection(Section):
    """[personal] Each participant's own model: the rates to try, the private adapter, and the mixes
    from which it chooses.
    """

    local_rates: Annotated[
        list[Rate],
        Field(
            min_length=1,
            max_length=MOST_TRIED,
            description="Learning rates tried for the local model, which has as many steps as all "
            "rounds together; at most 64.",
        ),
    ] = Field(default=[1e-3, 3e-3])
    pooled_rates: Annotated[
        list[Rate] | None,
        Field(
            description="Learning rates that the pooled counterfactual tries. Unset: `local_rates`."
        ),
    ] = None
    private_rates: Annotated[
        list[Rate],
        Field(
            min_length=1,
            max_length=MOST_TRIED,
            description="Learning rates tried for the private adapter on top of the shared model; "
            "at most 64.",
        ),
    ] = Field(default=[5e-4])
    private_rank: Annotated[
        Count,
        Field(description="Rank of the private adapter; never more than the participant's own."),
    ] = 4
    private_epochs: Annotated[
        Positive,
        Field(description="Passes over its own data for which the private adapter is trained."),
    ] = 3.0
    checks: Annotated[
        Count,
        Field(
            description="Times that validation is measured while fitting; the best moment is taken."
        ),
    ] = 4
    alphas: Annotated[
        list[Share],
        Field(
            max_length=MOST_TRIED,
            description="Strengths α (shares) of the private adapter from which the participant "
            "chooses; at most 64.",
        ),
    ] = Field(default=[0.5, 1.0])
    mixes: Annotated[
        list[Share],
        Field(
            max_length=MOST_TRIED,
            description="Points between shared and local model, as the share of local; at most 64.",
        ),
    ] = Field(default=[0.5])
    ditto: Annotated[
        list[Positive],
        Field(
            max_length=MOST_PULLED,
            description="λ of private adapters that are pulled towards the shared model, each "
            "another candidate (Ditto), such as `[0.1, 1.0]`; at most 32. Each costs as much "
            "as the private adapter.",
        ),
    ] = Field(default=[])


class DistilSection(Section):
    """[distil] Models teach each other on the centre's public texts (FedDF): those of all bases, or
    the participants' own.
    """

    teachers: Annotated[
        Literal["groups", "participants"],
        Field(
            description="`groups`: the shared models of all bases teach. `participants`: the "
            "participants' own models teach as they are after local training (also with one "
            "base)."
        ),
    ] = "groups"
    ensemble: Annotated[
        str,
        Field(
            description="How teachers are joined: `feddf` (mean of the logits) or `mixture` (mean "
            "of the probabilities)."
        ),
    ] = "feddf"
    votes: Annotated[
        Literal["participants", "bases"],
        Field(
            description="`participants`: every participant counts the same in the teacher; "
            "`bases`: every base does."
        ),
    ] = "participants"
    every: Annotated[Count, Field(description="Rounds from one distillation to the next.")] = 1
    steps: Annotated[Count, Field(description="Steps of the centre for each base, each time.")] = 20
    items: Annotated[
        Count,
        Field(
            description="Texts of the centre's training data, drawn again each time (causal: "
            "blocks)."
        ),
    ] = 128
    rank: Annotated[
        Count | None,
        Field(
            description="Rank of the adapter that is trained. Unset: the largest rank of all "
            "participants."
        ),
    ] = None
    learning_rate: Annotated[
        Rate,
        Field(
            description="AdamW's learning rate at the first step; it falls to 0 within one "
            "distillation, and from round to round as `[train]`'s."
        ),
    ] = 1e-3
    temperature: Annotated[
        Positive,
        Field(
            description="Temperature of the teacher; above 1 it is softened, and less likely "
            "classes count more."
        ),
    ] = 1.0
