"""Commands across a network need packages that a plain install leaves out: say which, and how to
install them.
"""

from tequio.core.errors import NetworkError, TequioError
from tequio.core.texts.words import refusal

OF_A_NETWORK = {"cryptography", "flwr", "google", "grpc", "httpx", "starlette", "uvicorn"}


def explained(error: TequioError | ModuleNotFoundError) -> TequioError:
    """Return an error of Tequio as it is, and a missing package of the extra `flower` as one.

    Raises any other.
    """
    if isinstance(error, TequioError):
        return error
    package = (error.name or "").partition(".")[0]
    if package not in OF_A_NETWORK:
        raise error
    return refusal(NetworkError, "network-package", package=package)
