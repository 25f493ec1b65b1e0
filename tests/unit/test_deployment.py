"""Files for containers: of the shape that their tools take, safe by default, and with commands that exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from llama_index_presets.cli import app
from llama_index_presets.serve.config import read_config

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = DEPLOY.parent
DOCKERFILE = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
INSTRUCTIONS = {
    "FROM", "RUN", "CMD", "LABEL", "EXPOSE", "ENV", "ADD", "COPY", "ENTRYPOINT", "VOLUME", "USER", "WORKDIR", "ARG",
    "HEALTHCHECK", "SHELL", "STOPSIGNAL", "ONBUILD",
}  # fmt: skip


def lines() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments."""
    kept = (line.strip() for line in DOCKERFILE.splitlines())
    return [
        (word, rest) for line in kept if line and line[0] != "#" for word, _, rest in [line.partition(" ")]
    ]


def test_the_dockerfile_has_known_instructions_and_ends_without_root() -> None:
    """Every line begins with an instruction; the last stage runs as a numbered user and has a health check."""
    assert {word for word, _ in lines()} <= INSTRUCTIONS
    last = lines()[max(n for n, (word, _) in enumerate(lines()) if word == "FROM") :]
    user = next(rest for word, rest in last if word == "USER")
    assert user.isdigit() and int(user) > 0
    assert any(word == "HEALTHCHECK" and "/readyz" in rest for word, rest in last)
    assert not any("gcc" in rest or "build-essential" in rest for _, rest in lines())


def test_what_the_dockerfile_copies_is_there() -> None:
    """Files of the repository, not of this machine."""
    for word, rest in lines():
        if word == "COPY" and not rest.startswith("--from"):
            for source in shlex.split(rest)[:-1]:
                assert (ROOT / source).exists(), source


def test_the_extras_of_the_image_exist() -> None:
    """An extra that the package lacks would be left out with a warning only."""
    extras = next(rest for word, rest in lines() if word == "ARG").partition("=")[2].split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) <= set(known)


def test_the_command_of_the_image_exists() -> None:
    """Its options are those of the command, and the configuration is one that the server reads."""
    command = yaml.safe_load(next(rest for word, rest in lines() if word == "CMD"))
    said = CliRunner().invoke(app, [*command[1:2], "--help"], env={"COLUMNS": "200"}).output
    assert command[0] == "llama-presets" and command[2] in said
    config = read_config(DEPLOY / "serve.toml")
    assert (config.host, config.port, config.public) == ("0.0.0.0", 8000, True)


def test_compose_services_fit_together() -> None:
    """Keys are those of the specification; volumes, dependencies and hosts that are named are there."""
    services = COMPOSE["services"]
    known = {
        "build", "image", "environment", "ports", "volumes", "depends_on", "read_only", "tmpfs", "cap_drop",
        "security_opt", "restart", "stop_grace_period", "healthcheck",
    }  # fmt: skip
    for service in services.values():
        assert set(service) <= known and ("image" in service) != ("build" in service)
        assert all(volume.split(":")[0] in COMPOSE["volumes"] for volume in service.get("volumes", []))
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert set(service.get("depends_on", {})) <= set(services)
    assert "healthcheck" in services["postgres"] and "pgvector" in services["postgres"]["image"]
    assert (
        DEPLOY / services["server"]["build"]["context"] / services["server"]["build"]["dockerfile"]
    ).is_file()
    engine = read_config(DEPLOY / "serve.toml").engines["kb"]
    assert "@postgres:5432/" in engine.storage and "password" not in engine.storage
    assert isinstance(engine.settings, dict) and "//phoenix:6006" in engine.settings["trace_endpoint"]


@pytest.mark.parametrize("service", ["server", "postgres"])
def test_no_password_is_written_down(service: str) -> None:
    """Secrets come from the environment, and a missing one ends the start."""
    for name, value in COMPOSE["services"][service]["environment"].items():
        assert not re.search("PASSWORD|KEY", name) or re.fullmatch(r"\$\{\w+:\?[^}]+\}", value)


def test_kubernetes_objects_are_safe_and_fit_together() -> None:
    """Selectors match, mounts have volumes, probes ask routes of the server; no root, no writing elsewhere."""
    workload, service = OBJECTS
    pod = workload["spec"]["template"]
    container = pod["spec"]["containers"][0]
    assert (workload["apiVersion"], workload["kind"]) == ("apps/v1", "StatefulSet")
    assert workload["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["selector"] == workload["spec"]["selector"]["matchLabels"]
    volumes = {one["name"] for one in pod["spec"]["volumes"]}
    volumes |= {one["metadata"]["name"] for one in workload["spec"]["volumeClaimTemplates"]}
    mounts = [mount for one in [container, *pod["spec"]["initContainers"]] for mount in one["volumeMounts"]]
    assert {mount["name"] for mount in mounts} == volumes
    probes = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")
    }
    assert probes == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    assert (
        pod["spec"]["securityContext"]["runAsNonRoot"]
        and container["securityContext"]["readOnlyRootFilesystem"]
    )
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
