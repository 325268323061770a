"""The containers, as far as can be tested without a container engine: the files are right, and their commands run."""

import os
import re
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from gateway.settings import load_settings
from tests.deploy.tools import DEPLOY, ROOT, Service, compose_project, make_secrets, run, start_books


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """docker-compose.yml as compose itself understands it, the emulator's profile included."""
    return compose_project()


@pytest.fixture(scope="module")
def services(project: dict[str, Any]) -> dict[str, Service]:
    found: dict[str, Service] = project["services"]
    return found


def test_compose_takes_the_file() -> None:
    """With and without the emulator."""
    for profile in ((), ("--profile", "emulator")):
        run("docker-compose", *profile, "config", "--quiet")


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    """Without a rule ignored."""
    assert "" == run("hadolint", DEPLOY / "Dockerfile")


def test_no_service_is_more_than_it_must_be(services: dict[str, Service]) -> None:
    """Not root, no capability, nothing writable but its data, and its health is known."""
    for name, service in services.items():
        assert re.fullmatch(r"[1-9][0-9]*(:[1-9][0-9]*)?", service["user"]), name
        assert (["ALL"], True) == (service["cap_drop"], service["read_only"]), name
        assert ["no-new-privileges:true"] == service["security_opt"], name
        assert service["healthcheck"]["test"], name


def test_what_must_outlive_a_container_is_on_a_volume(services: dict[str, Service]) -> None:
    """The books, and the gateway's spool: charges that the books have not taken yet."""
    for name in ("gateway", "valkey"):
        assert ["/data"] == [each["target"] for each in services[name]["volumes"] if each["type"] == "volume"], name


def test_only_this_machine_reaches_what_is_published(services: dict[str, Service]) -> None:
    """A proxy that speaks TLS stands before whatever others are to reach; the books are published nowhere."""
    assert "ports" not in services["valkey"]
    for service in services.values():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:")


def test_secrets_are_files(project: dict[str, Any], services: dict[str, Service]) -> None:
    """No environment and no argument holds one."""
    files = {secret["file"] for secret in project["secrets"].values()}
    assert {str(DEPLOY / "secrets" / name) for name in project["secrets"]} == {str(ROOT / file) for file in files}
    for name, service in services.items():
        for variable in service.get("environment") or {}:
            assert not re.search(r"(KEY|TOKEN|PASSWORD)$", variable), f"{name}: {variable}"


def test_mounted_files_are_in_the_checkout(services: dict[str, Service]) -> None:
    """Compose would make an empty folder of a name that is mistyped."""
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume["source"]
            assert volume["type"] == "volume" or (ROOT / source).exists(), f"{name}: {source}"


def test_the_gateways_environment_is_one_that_it_takes(services: dict[str, Service], tmp_path: Path) -> None:
    """A setting that is misspelt would stop the start."""
    secrets = make_secrets(tmp_path)
    environ = {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", text).replace("/run/secrets", str(secrets))
        for name, text in services["gateway"]["environment"].items()
    }
    settings = load_settings({"GATEWAY_CONFIG": str(ROOT / "config" / "gateway.toml"), **environ})
    assert "sk-upstream-for-tests" == settings.upstream_api_key
    assert (secrets / "redis_password").read_text().strip() == settings.redis_password
    assert 48 == len(settings.admin_key) == len(settings.metrics_token)


def test_the_image_gets_what_it_copies() -> None:
    """.dockerignore lets nothing else through, and all of that exists."""
    copied = re.findall(r"^COPY (?!--from)(\S+)", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    let_through = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(copied) == sorted(let_through)
    assert [] == [path for path in copied if not (ROOT / path).exists()]


def test_secrets_are_made_once(project: dict[str, Any], tmp_path: Path) -> None:
    """All that compose wants; a second call changes none. Others are kept out by the folder, for containers read the
    files as users of their own."""
    secrets = make_secrets(tmp_path)
    made = {path.name: path.read_text() for path in secrets.iterdir()}
    assert set(project["secrets"]) == set(made)
    assert len(made) == len(set(made.values()))
    assert made == {path.name: path.read_text() for path in make_secrets(tmp_path, "sk-another").iterdir()}
    assert (0o700, {0o444}) == (mode(secrets), {mode(path) for path in secrets.iterdir()})


def test_without_minitoolais_key_the_secrets_are_not_complete(tmp_path: Path) -> None:
    """It says what is missing, and a further call adds just that."""
    script = tmp_path / "make-secrets"
    script.write_bytes((DEPLOY / "make-secrets").read_bytes())
    done = subprocess.run(["sh", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert 1 == done.returncode
    assert "MINITOOLAI_API_KEY=sk-" in done.stderr
    before = (tmp_path / "secrets" / "redis_password").read_text()
    assert "sk-later\n" == (make_secrets(tmp_path, "sk-later") / "minitoolai_api_key").read_text()
    assert before == (tmp_path / "secrets" / "redis_password").read_text()


def test_with_the_emulator_no_key_has_to_be_invented(project: dict[str, Any], tmp_path: Path) -> None:
    """Free and offline from the first command on; a key that is there stays, and a slip makes no secret."""
    script = tmp_path / "make-secrets"
    script.write_bytes((DEPLOY / "make-secrets").read_bytes())
    slip = subprocess.run(["sh", script, "--emulater"], capture_output=True, text=True, check=False)
    assert (1, "make-secrets: there is no --emulater; known is --emulator\n") == (slip.returncode, slip.stderr)
    for _ in range(2):
        subprocess.run(["sh", script, "--emulator"], env={"PATH": "/usr/bin:/bin"}, check=True)
    secrets = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert set(project["secrets"]) == set(secrets)
    assert re.fullmatch(r"sk-emulator-[0-9a-f]{48}\n", secrets["minitoolai_api_key"])
    assert secrets["minitoolai_api_key"] == (make_secrets(tmp_path, "sk-real") / "minitoolai_api_key").read_text()


def test_the_books_need_their_password_and_outlive_a_stop(services: dict[str, Service], tmp_path: Path) -> None:
    """The container's own command, run here: the server itself gets SIGTERM, and what it had is there again."""
    secrets = make_secrets(tmp_path)
    password = (secrets / "redis_password").read_text().strip()
    for expected in (None, b"books"):
        server = start_books(services["valkey"], secrets, tmp_path)
        url = f"unix://{tmp_path}/s"
        with redis.Redis.from_url(url, password=password, retry=Retry(ConstantBackoff(0.05), 400)) as client:
            assert expected == client.get("kept")
            client.set("kept", "books")
            assert ("yes", "always", "noeviction") == tuple(
                client.config_get(name)[name] for name in ("appendonly", "appendfsync", "maxmemory-policy")
            )
        with redis.Redis.from_url(url) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        assert password not in Path(f"/proc/{server.pid}/cmdline").read_text()
        server.send_signal(signal.SIGTERM)
        assert 0 == server.wait(30)


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)
