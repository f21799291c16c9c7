"""The examples in deploy/: every file says what it is for, is read by its format's own rules, and
its commands exist as they stand.

No container, cluster or service is started here. compose-spec.json is the schema of compose-spec at
commit 170098b (Apache-2.0).
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tequio.cli.log import parse_address
from tequio.cli.main import app

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
MANIFESTS = sorted(DEPLOY.glob("kubernetes/*.yaml"))
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
COMMANDS = typer.main.get_command(app)


def parse(words: list[str]) -> Any:
    """The command's context, as typer reads its words. Raises what typer raises."""
    command: Any = COMMANDS
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    return command.make_context("tequio", list(words))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] == "Job":
                yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def written() -> list[tuple[str, list[str]]]:
    """(file, words after `tequio`) of every command in comments, units and scripts."""
    found = []
    for path in FILES:
        text = path.read_text(encoding="utf-8").replace("%i", "north")
        lines = re.findall(
            r"(?:^|[\s/])tequio ((?:coordinator|participate|join|status) [^\n|;&`,]+)", text
        )
        found += [
            (path.name, shlex.split(line.split(". ")[0].partition(" says ")[0])) for line in lines
        ]
    return found


def listed() -> list[tuple[str, list[str]]]:
    """(file, words after `tequio`) of every command that a container is given as a list."""
    compose = documents(DEPLOY / "docker/compose.yaml")[0]
    found = [("compose.yaml", service["command"]) for service in compose["services"].values()]
    for name, pod in pods():
        found += [(name, container["args"]) for container in pod["containers"]]
    for line in re.findall(
        r"compose run --rm \w+ (.+)", (DEPLOY / "docker/compose.yaml").read_text(encoding="utf-8")
    ):
        found.append(("compose.yaml", shlex.split(line.split(". ")[0])))
    return found


def test_there_are_examples_of_each_kind() -> None:
    kinds = {"docker": 3, "kubernetes": 2, "proxy": 2, "systemd": 2}
    assert {folder: len(list((DEPLOY / folder).iterdir())) for folder in kinds} == kinds


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_first_three_lines_say_what_it_is_for(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("# ") and len(line) > 30 for line in lines[:3])
    assert max(map(len, lines)) < 200


def test_commands_are_found() -> None:
    """So that the two tests below can fail."""
    files = {name for name, _ in written()} | {name for name, _ in listed()}
    assert len(written()) >= 11
    assert len(listed()) >= 6
    assert {
        "tequio-coordinator.service",
        "coordinator.yaml",
        "compose.yaml",
        "nginx.conf",
        "tequio-participant",
    } <= files
    with pytest.raises(Exception, match="--nothing"):
        parse(["coordinator", "start", "hub", "--nothing"])


@pytest.mark.parametrize(("where", "words"), written() + listed())
def test_every_command_parses(where: str, words: list[str]) -> None:
    context = parse(words)
    if context.params.get("metrics"):
        assert parse_address(context.params["metrics"]) is not None


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_follow_the_schema_of_kubernetes(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    kinds = []
    for document in documents(path):
        validate.validate(document, "1.32", strict=True)
        kinds.append(document["kind"])
    assert {"PersistentVolumeClaim", "Job", "NetworkPolicy"} <= set(kinds)
    wrong = documents(path)[1]
    wrong["spec"]["template"]["spec"]["containers"][0]["arguments"] = []
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, "1.32", strict=True)


def test_pods_may_do_nothing_but_their_work() -> None:
    """Pod Security's level `restricted`, and no token of the cluster."""
    found = dict(pods())
    assert set(found) == {"tequio-coordinator", "tequio-participant"}
    for pod in found.values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in [*pod["containers"], *pod["initContainers"]]:
            inside = container["securityContext"]
            assert inside["allowPrivilegeEscalation"] is False
            assert inside["readOnlyRootFilesystem"] is True
            assert inside["capabilities"] == {"drop": ["ALL"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_probes_services_and_policies_name_ports_that_are_there() -> None:
    for path in MANIFESTS:
        by_kind = {document["kind"]: document for document in documents(path)}
        template = by_kind["Job"]["spec"]["template"]
        container = template["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        address = parse(container["args"]).params["metrics"]
        assert ports["metrics"] == int(address.rpartition(":")[2])
        probes = [container[key]["httpGet"] for key in container if key.endswith("Probe")]
        assert {probe["port"] for probe in probes} <= set(ports)
        assert {probe["path"] for probe in probes} <= {"/health", "/tequio/health"}
        policy = by_kind["NetworkPolicy"]["spec"]
        named = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
        assert named == set(ports)
        anywhere = [
            port["port"]
            for rule in policy["ingress"]
            if "from" not in rule
            for port in rule["ports"]
        ]
        assert "metrics" not in anywhere
        labels = template["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"] == labels
        if "Service" in by_kind:
            service = by_kind["Service"]["spec"]
            assert service["selector"] == labels
            assert [port["targetPort"] for port in service["ports"]] == ["door"]


def test_what_a_pod_mounts_is_made_somewhere() -> None:
    """A claim in the same file, or a command or a word in its first lines that says where from."""
    for path in MANIFESTS:
        text = "\n".join(path.read_text(encoding="utf-8").splitlines()[:3])
        claims = {
            d["metadata"]["name"] for d in documents(path) if d["kind"] == "PersistentVolumeClaim"
        }
        for volume in next(d for d in documents(path) if d["kind"] == "Job")["spec"]["template"][
            "spec"
        ]["volumes"]:
            if "persistentVolumeClaim" in volume:
                name = volume["persistentVolumeClaim"]["claimName"]
                assert name in claims or f"volume {name}" in text
            if "configMap" in volume:
                assert f"create configmap {volume['configMap']['name']} " in text
            if "secret" in volume:
                assert f"create secret generic {volume['secret']['secretName']} " in text


def test_compose_follows_its_schema_and_is_closed() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text(encoding="utf-8"))
    compose = documents(DEPLOY / "docker/compose.yaml")[0]
    check = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in check.iter_errors(compose)] == []
    assert list(check.iter_errors({**compose, "services": {"a": {"comand": []}}})), (
        "a wrong key must be noticed"
    )
    for service in compose["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["user"] == "10001:10001"
        assert service["healthcheck"]["test"][0] == "CMD"
        port = parse(service["command"]).params["metrics"]
        assert f"http://127.0.0.1:{port}/health" in service["healthcheck"]["test"][3]
    assert compose["services"]["coordinator"]["ports"] == ["9443:9443"]
    assert "ports" not in compose["services"]["participant"]


def test_the_image_copies_what_is_there_and_runs_as_nobody() -> None:
    text = (DEPLOY / "docker/Dockerfile").read_text(encoding="utf-8")
    root = DEPLOY.parent
    retained = (DEPLOY / "docker/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (root / name).exists()
            assert f"!{name}" in retained
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["10001:10001"]
    extras = re.search(r"\.\[([\w,]+)\]", text)
    assert extras is not None
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in project for extra in extras[1].split(","))
    assert re.search(
        r"^torch==", (root / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_verified_and_their_exposure_is_low(path: Path, tmp_path: Path) -> None:
    """`verify` wants the program to be there, so the interpreter stands for it."""
    unit = tmp_path / path.name
    unit.write_text(
        path.read_text(encoding="utf-8").replace("/opt/tequio/bin/tequio", sys.executable),
        encoding="utf-8",
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    rated: list[str | Path] = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--threshold=20",
        unit,
    ]  # 2.0 of 10
    assert subprocess.run(rated, capture_output=True, check=False).returncode == 0
    unit.write_text(
        unit.read_text(encoding="utf-8").replace("NoNewPrivileges=yes", "NoNewPrivilege=yes")
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert "NoNewPrivilege" in done.stderr, "a wrong key must be noticed"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_start_again_only_what_starting_again_can_mend(path: Path) -> None:
    from tequio.core.errors import BaseModelError, ConfigError, DataError, LedgerCorrupt, RunError

    keys = dict(
        line.split("=", 1)
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\w+=", line)
    )
    assert keys["Restart"] == "on-failure"
    prevented = set(map(int, keys["RestartPreventExitStatus"].split()))
    never = {e.exit_code for e in (BaseModelError, ConfigError, DataError, LedgerCorrupt, RunError)}
    assert never <= prevented
    assert keys["User"] == "tequio"


def test_nginx_is_read_by_its_own_parser() -> None:
    crossplane = pytest.importorskip("crossplane")
    read = crossplane.parse(str(DEPLOY / "proxy/nginx.conf"))
    assert read["status"] == "ok", read["errors"]
    (stream,) = [d for d in read["config"][0]["parsed"] if d["directive"] == "stream"]
    (server,) = [d for d in stream["block"] if d["directive"] == "server"]
    names = {d["directive"] for d in server["block"]}
    assert {"ssl_preread", "proxy_pass"} <= names
    assert not any(name.startswith("ssl_certificate") for name in names), "TLS must pass through"


def test_caddy_passes_tls_through() -> None:
    """No parser of Caddy's format is installed: braces, and that nothing ends TLS."""
    text = (DEPLOY / "proxy/Caddyfile").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert code.count("{") == code.count("}") == 4
    assert re.search(r"proxy 127\.0\.0\.1:19443\n", code)
    assert not re.search(r"^\s*tls\b", code, re.MULTILINE)
