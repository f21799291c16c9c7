"""A baseline without texts: logistic regression on a table's columns, with indicators of what is
missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # tried, chosen on validation
STEPS = 100


@dataclass(frozen=True)
class Rows:
    """Encoded rows: numbers (NaN where missing), columns of choices (0 or 1), and whether each is
    positive.
    """

    numbers: torch.Tensor
    choices: torch.Tensor
    positive: torch.Tensor


@dataclass(frozen=True)
class Scores:
    """Accuracy on one site's test rows, of its larger class, its own model, and the model of all
    rows together.
    """

    test: int
    majority: float
    local: float
    pooled: float


@dataclass(frozen=True)
class Model:
    """A fitted regression, with the means and spreads of the numbers that it was fitted on."""

    mean: torch.Tensor
    spread: torch.Tensor
    weights: torch.Tensor

    def accuracy(self, rows: Rows) -> float:
        """Return the share of rows that it gets right."""
        score = _columns(rows, self.mean, self.spread) @ self.weights
        return float(((score > 0) == rows.positive).double().mean())


def encode(
    rows: Sequence[Mapping[str, str]],
    positive: Sequence[bool],
    numbers: Sequence[str],
    levels: Mapping[str, Sequence[str]],
) -> Rows:
    """Return the rows as numbers and as one column for each level of a choice, and one where it is
    missing.
    """
    values = [[float(row[name]) if row[name] else float("nan") for name in numbers] for row in rows]
    chosen = [
        [float(row[name] == level) for name in levels for level in (*levels[name], "")]
        for row in rows
    ]
    double = torch.float64
    return Rows(
        torch.tensor(values, dtype=double),
        torch.tensor(chosen, dtype=double),
        torch.tensor(positive),
    )


def compare(sites: Mapping[str, Mapping[str, Rows]]) -> dict[str, Scores]:
    """Return each site's scores; every model's penalty is chosen on the validation rows that its
    owner has.
    """
    pooled = choose(
        _together([site["train"] for site in sites.values()]),
        _together([site["validation"] for site in sites.values()]),
    )
    out = {}
    for name, site in sites.items():
        test = site["test"]
        share = float(test.positive.double().mean())
        local = choose(site["train"], site["validation"])
        scores = (local.accuracy(test), pooled.accuracy(test))
        out[name] = Scores(len(test.positive), max(share, 1.0 - share), *scores)
    return out


def choose(train: Rows, validation: Rows) -> Model:
    """Fit with each penalty; return the model that is best on validation, of equals that of the
    larger penalty.
    """
    models = [fit(train, penalty) for penalty in reversed(PENALTIES)]
    return max(models, key=lambda model: model.accuracy(validation))


def fit(rows: Rows, penalty: float) -> Model:
    """Fit a logistic regression; the last weight is the intercept, and is not penalised."""
    present = ~rows.numbers.isnan()
    count = present.sum(0).clamp(min=1)
    mean = torch.where(present, rows.numbers, 0.0).sum(0) / count
    spread = (torch.where(present, rows.numbers - mean, 0.0).square().sum(0) / count).sqrt()
    spread = torch.where(spread > 0, spread, 1.0)
    columns = _columns(rows, mean, spread)
    weights = torch.zeros(columns.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")
    target = rows.positive.double()

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(columns @ weights, target)
        value = value + penalty * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return Model(mean, spread, weights.detach())


def _columns(rows: Rows, mean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Scaled numbers (0 where missing), which of them are missing, the choices, and 1."""
    missing = rows.numbers.isnan()
    scaled = torch.where(missing, 0.0, (rows.numbers - mean) / spread)
    ones = torch.ones(len(rows.positive), 1, dtype=torch.float64)
    return torch.cat([scaled, missing.double(), rows.choices, ones], 1)


def _together(parts: Sequence[Rows]) -> Rows:
    return Rows(
        torch.cat([part.numbers for part in parts]),
        torch.cat([part.choices for part in parts]),
        torch.cat([part.positive for part in parts]),
    )
