"""Keys stay with their owner, and an invitation that was changed is not followed."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from builders import refused

pytest.importorskip("cryptography")

from tequio.core.canonical import digest
from tequio.core.errors import ConfigError, NetworkError
from tequio.trust.invitation import (
    Invitation,
    invitation_bytes,
    new_token,
    read_invitation,
    token_hash,
)
from tequio.trust.keys import (
    is_public_key,
    key_bytes,
    load_key,
    new_authority,
    new_key,
    new_server,
    public_bytes,
    write_secret,
)


def test_a_key_comes_back_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    key = new_key()
    write_secret(tmp_path / "key.pem", key_bytes(key))
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert public_bytes(load_key(tmp_path / "key.pem")) == public_bytes(key)
    with refused(ConfigError, "key-exists", path=str(tmp_path / "key.pem")):
        write_secret(tmp_path / "key.pem", b"another")


def test_only_public_keys_of_our_kind_are_taken() -> None:
    assert is_public_key(public_bytes(new_key()))
    assert not is_public_key(key_bytes(new_key()))
    assert not is_public_key(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    _, other = new_authority("x", 1)
    assert not is_public_key(other)


def test_the_servers_certificate_is_signed_by_the_authority_for_its_hosts() -> None:
    from cryptography import x509

    authority, key = new_authority("demo", 1)
    certificate, _ = new_server(authority, key, ["fl.example.org", "127.0.0.1"], 1)
    issued = x509.load_pem_x509_certificate(certificate)
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def an_invitation(text: str = 'name = "x"\n') -> Invitation:
    return Invitation("north", "127.0.0.1:9443", "PEM", text, digest(text.encode()), new_token())


def test_an_invitation_comes_back(tmp_path: Path) -> None:
    path, made = tmp_path / "north.json", an_invitation()
    path.write_bytes(invitation_bytes(made))
    assert read_invitation(path) == made


def test_a_changed_federation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "north.json"
    raw = json.loads(invitation_bytes(an_invitation()))
    path.write_text(json.dumps({**raw, "federation": 'name = "y"\n'}))
    with refused(NetworkError, "invitation-changed"):
        read_invitation(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 1}', "\x00"])
def test_what_is_no_invitation_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "north.json"
    path.write_text(content)
    with refused(ConfigError, "invitation-unreadable", path=str(path)):
        read_invitation(path)


@pytest.mark.parametrize("key", ["address", "token", "format"])
def test_a_field_that_is_no_text_is_named_and_not_blamed_on_the_version(
    tmp_path: Path, key: str
) -> None:
    path = tmp_path / "north.json"
    raw = json.loads(invitation_bytes(an_invitation()))
    path.write_text(json.dumps({**raw, key: 7}))
    with pytest.raises(ConfigError, match=f"{key} in it is not text"):
        read_invitation(path)
    path.write_text(json.dumps({**raw, "format": "tequio-invitation-9"}))
    with refused(ConfigError, "invitation-of-other-version"):
        read_invitation(path)


def test_tokens_differ_and_only_their_hash_is_retained() -> None:
    one, other = new_token(), new_token()
    assert one != other
    assert token_hash(one) == digest(one.encode())
    assert one not in token_hash(one)
