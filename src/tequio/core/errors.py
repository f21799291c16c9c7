"""Every error Tequio raises on purpose, as one tree.

TequioError                      what is wrong, why, and what to do
├── ConfigError                  federation.toml or participant.toml is wrong
├── DataError                    a participant's data cannot be used as they are
├── BaseModelError               the base model cannot be loaded, or lacks the named modules
├── ResourceError                not enough memory or disk, or the folder is read-only
├── UpdateError                  an update or adapter is malformed, corrupted or belongs to another model
│   └── MessageError             a message that came over a network is malformed, or its figures are not plausible
├── TrainingError                training diverged or gave NaN
│   └── BudgetError              a participant does not train: its own budget is spent
├── RunError                     the run as a whole cannot go on (no participant left, wrong folder, unknown name)
├── NetworkError                 the coordinator or a participant cannot be reached, or is not who it should be
├── AgreementError               a request departs from the federation.toml that the participant agreed to
├── ProtectionError              a secure sum, or the protection that a participant asks for, is not possible
└── LedgerError                  the ledger cannot be read or written
    ├── LedgerCorrupt            a record does not match its hash, or the chain is broken
    └── RunBusy                  another process is writing this run

Each message names the file, key or participant. Only `cli` and `report` print. `exit_code` is what
the command returns.
"""

from typing import Any, Self

from tequio.core.reason import Reason


class TequioError(Exception):
    """Base of the tree.

    `what` names the thing, `why` says what was expected, `fix` says what to do.

    reason: the same as a code with facts, where it has one: tests compare it, and records hold it.
    """

    exit_code = 1

    def __init__(
        self, what: str, why: str = "", fix: str = "", reason: Reason | None = None
    ) -> None:
        self.what, self.why, self.fix, self.reason = what, why, fix, reason
        super().__init__(" ".join(part.rstrip() for part in (what, why, fix) if part))

    def within(self, where: str) -> Self:
        """This error, saying where as well: in which of several groups, for instance."""
        TequioError.__init__(self, f"{where}: {self.what}", self.why, self.fix, self.reason)
        return self

    def as_reason(self) -> Reason:
        """Return the reason for a record; the kind of error and its words where it has no code."""
        return self.reason or Reason("failed", {"error": type(self).__name__, "message": str(self)})

    def as_dict(self) -> dict[str, Any]:
        """The error for `--json`: its kind, what, why and fix; its reason where it has one."""
        out = {"error": type(self).__name__, "what": self.what, "why": self.why, "fix": self.fix}
        return out | ({} if self.reason is None else {"reason": self.reason.as_record()})


class ConfigError(TequioError):
    """A configuration file is missing, malformed or asks for something illegal."""

    exit_code = 2


class DataError(TequioError):
    """A participant's data cannot be used as they are.

    Never quotes a text or a label's value of a sample.
    """

    exit_code = 3


class BaseModelError(TequioError):
    """The base model cannot be loaded, or has no such modules."""

    exit_code = 4


class ResourceError(TequioError):
    """Memory or disk is too small, or a folder cannot be written."""

    exit_code = 5


class UpdateError(TequioError):
    """An update or adapter is malformed, corrupted, or belongs to another model."""

    exit_code = 6


class MessageError(UpdateError):
    """A message that came over a network is malformed, or its figures are not plausible."""

    exit_code = 15


class TrainingError(TequioError):
    """Training gave NaN or diverged."""

    exit_code = 7


class BudgetError(TrainingError):
    """A participant does not train: its own budget is spent."""

    exit_code = 13


class RunError(TequioError):
    """The run as a whole cannot go on, or names something that is not there."""

    exit_code = 8


class NetworkError(TequioError):
    """The coordinator or a participant cannot be reached, or is not who it should be."""

    exit_code = 12


class AgreementError(TequioError):
    """A request departs from the federation.toml that the participant agreed to."""

    exit_code = 14


class ProtectionError(TequioError):
    """A secure sum, or the protection that a participant asks for, is not possible."""

    exit_code = 16


class LedgerError(TequioError):
    """The ledger cannot be read or written."""

    exit_code = 9


class LedgerCorrupt(LedgerError):
    """A record does not match its hash, or the chain is broken."""

    exit_code = 10


class RunBusy(LedgerError):
    """Another process is writing this run."""

    exit_code = 11
