"""[privacy] of both configuration files: what may leave a participant."""

from typing import Annotated, Literal

from pydantic import Field

from tequio.config.fields import Section

Mode = Literal["open", "masked"]
MODES: tuple[Mode, ...] = ("open", "masked")  # from the weakest to the strongest


class PrivacySection(Section):
    """[privacy] What the coordinator learns of a round: every update, or only their sum."""

    mode: Annotated[
        Mode,
        Field(
            description="`open`: the coordinator reads every update and score. `masked`: it reads "
            "only sums over the participants of a round, by a secure sum; the sums and the "
            "models still tell what they tell. `masked` needs 3 participants, `reduce` "
            "`rolora` or `ffa`, and `weights` `uniform`. With `tequio run` one process still "
            "holds everything. Across a network see docs/network.md."
        ),
    ] = "open"


class LeastPrivacySection(Section):
    """[privacy] What this participant insists on, whatever federation.toml says."""

    least_mode: Annotated[
        Mode,
        Field(
            description="The weakest `[privacy] mode` with which this participant takes part: "
            "`open` or `masked`."
        ),
    ] = "open"
