"""Dockerfile, .dockerignore and compose.yaml: small and locked, without root, and what they name is real."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyOptions

from service import cli
from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE_TEXT = (ROOT / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if each["image"] == "postroom:local"}


def instructions() -> list[list[tuple[str, str]]]:
    """The stages of the Dockerfile, the global arguments first: instruction and the rest of its line."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", " ")
    stages: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, " ".join(rest.split())))
    return stages


GLOBAL, BUILD, FINAL = instructions()


def of(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for instruction, rest in stage if instruction == name]


# --- the image --------------------------------------------------------------------------------------------------------


def test_both_stages_are_made_of_the_one_base_that_a_builder_may_change() -> None:
    assert GLOBAL == [("ARG", "PYTHON_IMAGE=python:3.13-slim")]
    assert of(BUILD, "FROM") == ["${PYTHON_IMAGE} AS build"]
    assert of(FINAL, "FROM") == ["${PYTHON_IMAGE}"]


def test_everything_that_is_installed_is_checked_by_hash_and_needs_no_compiler() -> None:
    installs = re.findall(r"pip (?:--python \S+ )?install ([^&|]*)", " && ".join(of(BUILD, "RUN")))
    assert len(installs) == 4
    *locked, project = (set(shlex.split(each)) for each in installs)
    for each in locked:
        assert {"--require-hashes", "--only-binary", ":all:"} <= each
    assert project == {"--no-deps", "--no-index", "/build/dist/*.whl"}


def test_extras_of_the_image_are_those_of_the_project_and_none_unless_asked_for() -> None:
    assert "EXTRAS=" in of(BUILD, "ARG")
    (file,) = re.findall(r'for extra in \$\{EXTRAS\}; do .*? -r "(.*?)" \|\| exit 1; done', " ".join(of(BUILD, "RUN")))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    copied = {source for each in of(BUILD, "COPY") for source in each.split()[:-1]}
    assert set(extras) == {"otel"}
    assert {file.replace("${extra}", extra) for extra in extras} <= copied


def test_the_image_runs_nothing_while_it_is_put_together_and_takes_only_the_environment_from_the_build() -> None:
    assert of(FINAL, "RUN") == []
    assert of(FINAL, "COPY") == [
        "--from=build /opt/postroom /opt/postroom",
        "--from=build --chown=10001:10001 /build/home /srv/postroom",
    ]
    assert "venv --without-pip /opt/postroom" in " ".join(of(BUILD, "RUN"))


def test_the_service_is_process_1_and_no_user_that_has_a_name() -> None:
    assert of(FINAL, "ENTRYPOINT") == ['["postroom"]']
    assert of(FINAL, "CMD") == ['["serve"]']
    assert of(FINAL, "USER") == ["10001:10001"]
    assert of(FINAL, "SHELL") == []


def test_a_container_may_wait_for_its_database_and_for_a_migration_before_it_counts_as_unhealthy() -> None:
    start = int(re.findall(r"--start-period=(\d+)s", " ".join(of(FINAL, "HEALTHCHECK")))[0])
    assert start >= Settings.model_fields["database_wait"].default + 60 + 10


def test_the_settings_of_the_image_are_real_and_its_port_is_the_default() -> None:
    given = dict(each.split("=", 1) for each in shlex.split(" ".join(of(FINAL, "ENV"))))
    names = {each.removeprefix(PREFIX).lower() for each in given if each.startswith(PREFIX)}
    assert names == {"host"}
    assert of(FINAL, "EXPOSE") == [str(Settings.model_fields["port"].default)]


def test_the_label_tells_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"VERSION={project['version']}" in of(FINAL, "ARG")
    labels = dict(each.split("=", 1) for each in shlex.split(" ".join(of(FINAL, "LABEL"))))
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    assert labels["org.opencontainers.image.licenses"] == project["license"]


def test_the_builder_gets_what_the_dockerfile_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    first, *rest = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    allowed = {line.removeprefix("!") for line in rest if line.startswith("!")}
    sources = {source for each in of(BUILD, "COPY") for source in each.split()[:-1]}
    assert allowed == sources
    assert all((ROOT / each).exists() for each in sources)


# --- compose ----------------------------------------------------------------------------------------------------------


def test_compose_would_take_the_file() -> None:
    PyOptions(apply_merge=True).from_yaml(COMPOSE_TEXT).validate()
    volumes = {each.partition(":")[0] for service in SERVICES.values() for each in service.get("volumes", ())}
    assert volumes == set(COMPOSE["volumes"])
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_a_misspelt_key_of_compose_is_seen() -> None:
    with pytest.raises(ValueError, match="stop_grace_perio"):
        PyOptions(apply_merge=True).from_yaml(COMPOSE_TEXT.replace("stop_grace_period:", "stop_grace_perio:"))


def test_ports_are_open_to_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_of_compose_has_a_version() -> None:
    for service in SERVICES.values():
        _, _, tag = service["image"].partition(":")
        assert tag
        assert tag != "latest"


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_write_nowhere_else_and_gain_no_right(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert ("user" in service) == (name == "secrets")


@pytest.mark.parametrize("name", OURS)
def test_the_settings_and_the_commands_of_compose_are_real(name: str) -> None:
    given = OURS[name].get("environment", {})
    names = {key.removeprefix(PREFIX).lower(): value for key, value in given.items()}
    assert all(key.startswith(PREFIX) for key in given)
    assert set(names) <= set(Settings.model_fields)
    Settings(**names)
    if "entrypoint" not in OURS[name]:
        cli._parser().parse_args(OURS[name].get("command", ["serve"]))


def test_the_service_starts_when_all_that_it_needs_is_there() -> None:
    assert SERVICES["postroom"]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "mailpit": {"condition": "service_healthy", "restart": True},  # its network is gone with it
    }
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["postgres"]["depends_on"] == {"secrets": {"condition": "service_completed_successfully"}}
    for name in ("postgres", "mailpit", "postroom"):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
        assert SERVICES[name]["restart"] == "unless-stopped"


def test_the_relay_of_compose_is_loopback_and_the_published_port_is_that_of_the_service() -> None:
    service, mailpit = SERVICES["postroom"], SERVICES["mailpit"]
    assert service["network_mode"] == "service:mailpit"
    assert service["environment"]["POSTROOM_RELAY_URL"].startswith("smtp://127.0.0.1:")
    assert "ports" not in service
    assert f"127.0.0.1:8000:{Settings.model_fields['port'].default}" in mailpit["ports"]


def test_compose_gives_the_service_time_to_drain() -> None:
    wait = float(SERVICES["postroom"]["stop_grace_period"].removesuffix("s"))
    assert wait >= Settings.model_fields["drain_delay"].default + Settings.model_fields["drain_grace"].default + 10


def test_no_password_is_in_the_file_and_the_one_that_is_made_once_is_the_same_for_both_sides(tmp_path: Path) -> None:
    service = SERVICES["secrets"]
    (script,) = service["command"]
    assert service["entrypoint"] == ["python3", "-c"]
    assert "$" not in script  # compose would take it for a variable
    script = script.replace("/run/secrets/postroom", str(tmp_path))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env=dict(os.environ))
    word = (tmp_path / "database-password").read_text()
    assert len(word) >= 32
    assert (tmp_path / "database-url").read_text() == f"postgresql://postroom:{word}@postgres/postroom"
    settings = {key: value for each in SERVICES.values() for key, value in each.get("environment", {}).items()}
    assert settings["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postroom/database-password"
    assert settings["POSTROOM_DATABASE_URL_FILE"] == "/run/secrets/postroom/database-url"
    assert settings["POSTGRES_USER"] == settings["POSTGRES_DB"] == "postroom"
