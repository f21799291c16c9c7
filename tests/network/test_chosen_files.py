"""A path in a coordinator's federation.toml opens no file of a participant's own, only the
coordinator's:

`join` showed its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from builders import refused, sentences, write_jsonl
from tequio.app.network.chosen_files import (
    FILES,
    LOCAL_DATA,
    base_key,
    check_unchanged,
    lines,
    read_agreed_files,
)
from tequio.app.network.hub.folder import init_coordinator_folder, invite, read_coordinator_folder
from tequio.app.network.participant.join import FEDERATION
from tequio.app.network.participant.serve import open_participant
from tequio.config import MAIN, federation_of_text, load_federation, load_participant
from tequio.core.errors import BaseModelError, ConfigError, DataError, NetworkError
from tequio.ledger.folder import COORDINATOR_FILE, IDENTITY
from tequio.participant.base_files import digest_base_files
from tequio.trust.invitation import invitation_bytes, read_invitation

Maker = Callable[..., Path]
PUBLIC = "public.jsonl"


@pytest.fixture
def toml(make_federation: Maker, tmp_path: Path, tiny_bert: Path) -> Path:
    """A federation whose [local] data and base are paths seen from its own folder."""
    path = make_federation(
        participants=2,
        centre=False,
        local={"terms": {"replay": 0.5}, "data": PUBLIC},
        base={"model": "./base", "dtype": "float32"},
    )
    write_jsonl(path.parent / PUBLIC, sentences(20, 300))
    shutil.copytree(tiny_bert, path.parent / "base")
    return path


def joined(toml: Path, tmp_path: Path, files: dict[str, str] | None = None) -> tuple[Path, Any]:
    """A participant's folder as `join` writes it, without a coordinator that listens; and its own
    file.
    """
    hub, folder = tmp_path / "hub", tmp_path / "site0"
    _, invitations = init_coordinator_folder(hub, toml, "127.0.0.1:9443")
    asked = read_invitation(invitations[0])
    folder.mkdir()
    (folder / FEDERATION).write_text(asked.federation)
    identity = {
        "name": "site0",
        "address": asked.address,
        "node": "1",
        "participant": "site0.toml",
        "key": "key.pem",
    }
    (folder / IDENTITY).write_text(json.dumps(identity))
    (folder / FILES).write_text(json.dumps(dict(asked.files) if files is None else files))
    return folder, load_participant(toml.parent / "participants" / "site0.toml")


def give(toml: Path, folder: Path) -> None:
    """Put the coordinator's files where the participant's folder has them."""
    shutil.copy(toml.parent / PUBLIC, folder / PUBLIC)
    shutil.copytree(toml.parent / "base", folder / "base")


def opened(folder: Path, file: Any) -> bool:
    """Open what a participant needs; return whether it has public texts."""
    with open_participant(folder, file, lambda _: None) as service:
        return service.node.public is not None


def test_invitations_carry_the_digests_of_what_participants_open(
    toml: Path, tmp_path: Path
) -> None:
    _, invitations = init_coordinator_folder(tmp_path / "hub", toml, "127.0.0.1:9443")
    data = hashlib.sha256((toml.parent / PUBLIC).read_bytes()).hexdigest()
    expected = {LOCAL_DATA: data, base_key(MAIN): digest_base_files(toml.parent / "base")}
    for path in invitations:
        assert read_invitation(path).files == expected
    assert read_coordinator_folder(tmp_path / "hub").files == expected
    assert read_invitation(invite(tmp_path / "hub", "site1")).files == expected


def test_a_federation_without_such_files_has_the_invitations_it_had(
    make_federation: Maker, tmp_path: Path
) -> None:
    """An earlier version reads them; and its own are read."""
    toml = make_federation(base={"model": "acme/in-the-hub"})
    _, (first, *_) = init_coordinator_folder(tmp_path / "hub", toml, "127.0.0.1:9443")
    assert "files" not in json.loads(first.read_text())
    asked = read_invitation(first)
    assert asked.files == {}
    assert first.read_bytes() == invitation_bytes(asked)
    raw = json.loads(first.read_text())
    for wrong in (["x"], {"[local] data": 1}, "text"):
        first.write_text(json.dumps(raw | {"files": wrong}))
        with pytest.raises(ConfigError, match="files in it"):
            read_invitation(first)


def test_join_shows_each_file_its_purpose_and_its_digest(toml: Path, tmp_path: Path) -> None:
    _, invitations = init_coordinator_folder(tmp_path / "hub", toml, "127.0.0.1:9443")
    asked = read_invitation(invitations[0])
    config = federation_of_text(asked.federation, "federation.toml").part(MAIN)
    first, second = lines(config, MAIN, asked.files)
    assert (
        first
        == f"{PUBLIC}: texts for the local terms (replay 0.5). SHA-256 {asked.files[LOCAL_DATA]}."
    )
    assert second.startswith("./base: the base model")
    assert asked.files[base_key(MAIN)] in second
    private = config.model_copy(
        update={"local": config.local.model_copy(update={"data": Path("~/private.jsonl")})}
    )
    assert os.path.expanduser("~/private.jsonl") in lines(private, MAIN, asked.files)[0]
    with refused(ConfigError, "file-without-digest", key="[local] data"):
        lines(config, MAIN, {})


def test_the_coordinators_files_are_opened(toml: Path, tmp_path: Path) -> None:
    folder, file = joined(toml, tmp_path)
    give(toml, folder)
    assert opened(folder, file)
    assert opened(folder, file)  # resumed


def test_a_participants_own_file_at_the_coordinators_path_is_not_used(
    toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of the test of chaos: ~/private.jsonl, which is another file at each home."""
    text = toml.read_text()
    toml.write_text(text.replace(f'data = "{PUBLIC}"', 'data = "~/private.jsonl"'))
    assert toml.read_text() != text
    coordinator, own = tmp_path / "coordinator-home", tmp_path / "home"
    write_jsonl(coordinator / "private.jsonl", sentences(20, 300))
    write_jsonl(
        own / "private.jsonl",
        [{"text": f"PIN {i} of the director", "label": "bad"} for i in range(20)],
    )
    monkeypatch.setenv("HOME", str(coordinator))
    folder, file = joined(toml, tmp_path)
    give_base(toml, folder)
    monkeypatch.setenv("HOME", str(own))
    with pytest.raises(
        DataError, match=r"private\.jsonl is not the coordinator's.*Expected SHA-256"
    ) as caught:
        opened(folder, file)
    assert str(own) in str(caught.value)
    assert "PIN" not in str(caught.value)
    shutil.copy(coordinator / "private.jsonl", own / "private.jsonl")
    assert opened(folder, file)


def give_base(toml: Path, folder: Path) -> None:
    shutil.copytree(toml.parent / "base", folder / "base")


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda _: None]
)
def test_what_is_no_file_at_that_path_is_named(
    toml: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    folder, file = joined(toml, tmp_path)
    give_base(toml, folder)
    make(folder / PUBLIC)
    with pytest.raises(DataError, match=PUBLIC):
        opened(folder, file)


def test_a_base_by_a_path_is_the_coordinators_or_the_participants_own_choice(
    toml: Path, tmp_path: Path, small_bert: Path, tiny_bert: Path
) -> None:
    folder, file = joined(toml, tmp_path)
    give(toml, folder)
    shutil.rmtree(folder / "base")
    shutil.copytree(small_bert, folder / "base")
    with pytest.raises(
        BaseModelError, match=r"base is not the coordinator's.*Or say in participant\.toml"
    ):
        opened(folder, file)
    assert opened(folder, file.model_copy(update={"base": tiny_bert}))


def test_a_folder_that_is_called_like_an_id_of_the_hub_is_not_opened(
    make_federation: Maker, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = make_federation(centre=False, base={"model": "acme/tiny"})
    folder, file = joined(toml, tmp_path)
    assert read_agreed_files(folder) == {}
    for place in (folder, tmp_path / "elsewhere"):  # beside federation.toml; in the current folder
        shutil.copytree(tiny_bert, place / "acme" / "tiny")
        monkeypatch.chdir(place)
        with pytest.raises(ConfigError, match=r"acme/tiny is on this machine.*nobody agreed"):
            opened(folder, file)
        shutil.rmtree(place / "acme")


def test_a_folder_of_an_earlier_version_goes_on_and_a_new_one_asks_again(
    toml: Path, tmp_path: Path
) -> None:
    folder, file = joined(toml, tmp_path)
    give(toml, folder)
    (folder / FILES).rename(folder / "aside")
    with refused(ConfigError, "file-without-digest", key="[local] data"):
        opened(folder, file)
    (folder / "aside").rename(folder / FILES)
    assert opened(folder, file)
    (folder / FILES).unlink()  # its record has begun, as that of an earlier version has
    assert opened(folder, file)


def test_the_coordinator_does_not_start_with_a_file_that_changed(
    toml: Path, tmp_path: Path
) -> None:
    init_coordinator_folder(tmp_path / "hub", toml, "127.0.0.1:9443")
    config, agreed = load_federation(toml), read_coordinator_folder(tmp_path / "hub").files
    check_unchanged(config, agreed, begun=False)
    shutil.copy(toml.parent / "base" / "config.json", toml.parent / "base" / "other.json")
    check_unchanged(config, agreed, begun=True)  # the record says which base it is
    with pytest.raises(NetworkError, match=r"base has changed.*Put it back"):
        check_unchanged(config, agreed, begun=False)
    write_jsonl(toml.parent / PUBLIC, sentences(21, 300))
    with pytest.raises(NetworkError, match=r"\[local\] data: .*has changed"):
        check_unchanged(config, agreed, begun=True)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_what_participants_could_not_check_is_refused_at_init(
    toml: Path, tmp_path: Path, kind: str
) -> None:
    (toml.parent / PUBLIC).unlink()
    if kind == "folder":
        (toml.parent / PUBLIC).mkdir()
    with pytest.raises(DataError, match=PUBLIC):
        init_coordinator_folder(tmp_path / "hub", toml, "127.0.0.1:9443")
    assert not (tmp_path / "hub" / COORDINATOR_FILE).exists()
