"""Settings: read from one place, and whatever is wrong stops the start with one clear line."""

import logging
import re
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError, environment_name, load_prices, load_settings

SECRET = "sk-very-secret"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file of its own; empty, with no price list beside it."""
    path = tmp_path / "gateway.toml"
    path.write_text("")
    return path


def test_without_anything_the_defaults_hold(config: Path) -> None:
    """The address is this machine's own, and the price list lies beside the configuration."""
    settings = load_settings({"GATEWAY_CONFIG": str(config)})
    assert ("127.0.0.1", 8080, "https://minitoolai.com") == (settings.host, settings.port, settings.upstream_base_url)
    assert str(config.parent / "prices.toml") == settings.prices_file
    assert 1000 == settings.max_completion_tokens_default


def test_the_shipped_configuration_is_right(repository: Path) -> None:
    """Both files, as a stranger finds them; five chat models and fifteen image models have prices."""
    settings = load_settings({"GATEWAY_CONFIG": str(repository / "config" / "gateway.toml")})
    prices = load_prices(settings).at(0)
    assert (5, 15) == (len(prices.models("chat")), len(prices.models("image")))


def test_the_environment_wins_over_the_file(config: Path) -> None:
    """Each kind of value, in both places."""
    config.write_text('port = 1\ndrain_s = 2\nrefund_failed_images = true\nchat_roles = ["user"]\nhost = "::1"\n')
    environ = {
        "GATEWAY_CONFIG": str(config),
        "GATEWAY_PORT": "9000",
        "GATEWAY_REFUND_FAILED_IMAGES": "No",
        "GATEWAY_CHAT_ROLES": "user, assistant,",
        "MINITOOLAI_API_KEY": SECRET,
    }
    settings = load_settings(environ)
    assert (9000, 2.0, False, ("user", "assistant"), "::1", SECRET) == (
        settings.port,
        settings.drain_s,
        settings.refund_failed_images,
        settings.chat_roles,
        settings.host,
        settings.upstream_api_key,
    )


def test_every_setting_has_a_name_in_the_environment() -> None:
    """`GATEWAY_…`, but for the three that are known by other names."""
    names = {environment_name(one.name) for one in fields(Settings)}
    assert {"MINITOOLAI_API_KEY", "MINITOOLAI_BASE_URL", "REDIS_URL"} == {
        name for name in names if not name.startswith("GATEWAY_")
    }
    assert len(fields(Settings)) == len(names)


@pytest.mark.parametrize("name", ["upstream_api_key", "upstream_base_url", "redis_url"])
def test_every_setting_can_be_given_by_its_gateway_name(config: Path, name: str) -> None:
    """Also those with another name; where both are given they must agree, and no value is repeated."""
    text = "https://made-up.example"
    ours, known = f"GATEWAY_{name.upper()}", environment_name(name)
    for environ in ({ours: text}, {known: text}, {ours: text, known: text}):
        assert text == getattr(load_settings({"GATEWAY_CONFIG": str(config), **environ}), name)
    with pytest.raises(SettingsError, match=f"{known} and {ours} differ") as refused:
        load_settings({"GATEWAY_CONFIG": str(config), ours: text, known: "https://other.example"})
    assert "example" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("GATEWAY_DRIAN_S", "60", "GATEWAY_DRIAN_S, which is no setting"),
        ("GATEWAY_PORT", "http", "GATEWAY_PORT=http must be a whole number"),
        ("GATEWAY_PORT", "", "GATEWAY_PORT= must be a whole number"),
        ("GATEWAY_PORT", "80.5", "GATEWAY_PORT=80.5 must be a whole number"),
        ("GATEWAY_PORT", "-1", "GATEWAY_PORT (port) must be 0 or more"),
        ("GATEWAY_PORT", "65536", "GATEWAY_PORT (port) must be at most 65535"),
        ("GATEWAY_WORKERS", "0", "GATEWAY_WORKERS (workers) must be 1 or more"),
        ("GATEWAY_WORKERS", "1000", "GATEWAY_WORKERS (workers) must be at most 256"),
        ("GATEWAY_DRAIN_S", "soon", "GATEWAY_DRAIN_S=soon must be a number"),
        ("GATEWAY_DRAIN_S", "-1", "GATEWAY_DRAIN_S (drain_s) must be 0 or more"),
        ("GATEWAY_DRAIN_S", "nan", "GATEWAY_DRAIN_S (drain_s) must be 0 or more"),
        ("GATEWAY_DRAIN_S", "inf", "GATEWAY_DRAIN_S (drain_s) must be 0 or more"),
        ("GATEWAY_LEASE_S", "0.5", "GATEWAY_LEASE_S (lease_s) must be 1 or more"),
        ("GATEWAY_BODY_BYTES_MAX", "10", "GATEWAY_BODY_BYTES_MAX (body_bytes_max) must be 1024 or more"),
        ("GATEWAY_MAX_COMPLETION_TOKENS_DEFAULT", "0", "must be 1 or more"),
        ("GATEWAY_REFUND_FAILED_IMAGES", "maybe", "GATEWAY_REFUND_FAILED_IMAGES=maybe must be true or false"),
        ("GATEWAY_TIMEZONE", "Saigon", "such as Asia/Ho_Chi_Minh, not 'Saigon'"),
        ("GATEWAY_TIMEZONE", "", "timezone must be an IANA name"),
        ("GATEWAY_TIMEZONE", "../../etc/passwd", "timezone must be an IANA name"),
        ("GATEWAY_TRUSTED_PROXIES", "10.0.0.1, proxy", "such as 10.0.0.0/8, not 'proxy'"),
        ("GATEWAY_FIRST_WEEKDAY", "Monday", "first_weekday must be one of monday"),
        ("MINITOOLAI_BASE_URL", "minitoolai.com", "MINITOOLAI_BASE_URL (upstream_base_url) must be a URL"),
        ("MINITOOLAI_BASE_URL", "ftp://minitoolai.com", "MINITOOLAI_BASE_URL (upstream_base_url) must be a URL"),
        ("MINITOOLAI_BASE_URL", "https://", "MINITOOLAI_BASE_URL (upstream_base_url) must be a URL"),
        ("MINITOOLAI_BASE_URL", "http://[::1", "MINITOOLAI_BASE_URL (upstream_base_url) must be a URL"),
        ("MINITOOLAI_BASE_URL", "http://host:99999", "MINITOOLAI_BASE_URL (upstream_base_url) must be a URL"),
        ("MINITOOLAI_BASE_URL", "http://a b", "MINITOOLAI_BASE_URL (upstream_base_url) must be a URL"),
        (
            "MINITOOLAI_BASE_URL",
            "https://me:sk-very-secret@host",
            "MINITOOLAI_BASE_URL (upstream_base_url) must be a URL",
        ),
        ("GATEWAY_JOB_ABANDON_S", "172801", "GATEWAY_JOB_ABANDON_S (job_abandon_s) must be at most 172800"),
        ("GATEWAY_CHAT_PATH", "api/chat", "chat_path must begin with a slash"),
        ("MINITOOLAI_API_KEY", SECRET + "\n", "MINITOOLAI_API_KEY must be plain text on one line"),
        ("MINITOOLAI_API_KEY", SECRET + " ", "without any space"),
        ("MINITOOLAI_API_KEY", " " + SECRET, "without any space"),
        ("GATEWAY_UPSTREAM_API_KEY", SECRET + " twice", "MINITOOLAI_API_KEY must be plain text on one line"),
        ("GATEWAY_ADMIN_KEY", SECRET + " with a space", "GATEWAY_ADMIN_KEY must be plain text on one line"),
        ("GATEWAY_METRICS_TOKEN", "träge", "GATEWAY_METRICS_TOKEN must be plain text on one line"),
        ("MINITOOLAI_API_KEY", SECRET + "é", "MINITOOLAI_API_KEY must be plain text on one line"),
    ],
)
def test_a_wrong_variable_stops_the_start(config: Path, variable: str, text: str, says: str) -> None:
    """One line that names it, and never a secret."""
    with pytest.raises(SettingsError) as refused:
        load_settings({"GATEWAY_CONFIG": str(config), variable: text})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("more", [{"GATEWAY_HOST": "192.0.2.1"}, {"GATEWAY_TRUSTED_PROXIES": "127.0.0.1"}])
def test_a_short_administrators_key_is_for_this_machine_alone(config: Path, more: dict[str, str]) -> None:
    """Somebody who tries the gateway out may call it admin; where others can connect, they would call it that, too."""
    environ = {"GATEWAY_CONFIG": str(config), "GATEWAY_ADMIN_KEY": "sk-very-secret"}
    assert SECRET == load_settings(environ).admin_key
    with pytest.raises(SettingsError) as refused:
        load_settings(environ | more)
    assert str(refused.value).startswith("GATEWAY_ADMIN_KEY must have at least 16 characters where others")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("drian_s = 60", "there is no setting 'drian_s'"),
        ("[drain_s]\nx = 1", "drain_s must be of type float"),
        ('drain_s = "60"', "drain_s must be of type float, not '60'"),
        ("port = 80.0", "port must be of type int"),
        ("port = true", "port must be of type int"),
        ("drain_s = true", "drain_s must be of type float"),
        ("refund_failed_images = 1", "refund_failed_images must be of type bool"),
        ('chat_roles = "user"', "chat_roles must be a list of texts"),
        ("chat_roles = [1]", "chat_roles must be a list of texts"),
        ("admin_key = 4711", "admin_key must be of type str"),
        ("port = ", "is not TOML"),
        ("port = 1\nport = 2", "is not TOML"),
        ("port = 99999", "must be at most 65535"),
    ],
)
def test_a_wrong_file_stops_the_start(config: Path, text: str, says: str) -> None:
    """It names the file and the setting; the value of a secret is not repeated."""
    config.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings({"GATEWAY_CONFIG": str(config)})
    assert says in str(refused.value)
    assert "4711" not in str(refused.value)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """And be a file, in UTF-8."""
    (tmp_path / "latin-1").write_bytes(b'host = "\xe9"')
    for path, says in (("missing", "cannot be read"), (".", "cannot be read"), ("latin-1", "is not TOML")):
        with pytest.raises(SettingsError, match=says):
            load_settings({"GATEWAY_CONFIG": str(tmp_path / path)})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read"),
        ("", "the list is empty"),
        ("chat = 1", "chat must be a table"),
        ("[chat", "is not TOML"),
        ('[units.image]\nusd = 0.0015\nmodels = ["realvision"]', "must be a decimal string"),
    ],
)
def test_without_prices_there_is_no_start(config: Path, text: str | None, says: str) -> None:
    """Nothing could be billed."""
    if text is not None:
        (config.parent / "prices.toml").write_text(text)
    settings = load_settings({"GATEWAY_CONFIG": str(config)})
    with pytest.raises(SettingsError, match=re.escape(says)):
        load_prices(settings)


@pytest.mark.parametrize("variable", ["MINITOOLAI_API_KEY", "GATEWAY_UPSTREAM_API_KEY"])
def test_a_value_may_stand_in_a_file(config: Path, tmp_path: Path, variable: str) -> None:
    """Containers are given secrets as files; editors put a newline at their end."""
    secret = tmp_path / "secret"
    for end in ("", "\n", "\r\n"):
        secret.write_text(SECRET + end, newline="")
        settings = load_settings({"GATEWAY_CONFIG": str(config), f"{variable}_FILE": str(secret)})
        assert SECRET == settings.upstream_api_key


def test_every_setting_may_stand_in_a_file(config: Path, tmp_path: Path) -> None:
    """No setting's name is that of another's file."""
    names = {environment_name(one.name) for one in fields(Settings)} | {
        f"GATEWAY_{one.name.upper()}" for one in fields(Settings)
    }
    assert set() == names & {f"{name}_FILE" for name in names}
    (tmp_path / "port").write_text("9000\n")
    assert 9000 == load_settings({"GATEWAY_CONFIG": str(config), "GATEWAY_PORT_FILE": str(tmp_path / "port")}).port


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        (
            {"MINITOOLAI_API_KEY_FILE": SECRET},
            "_FILE must name a file that can be read (No such file",
        ),
        ({"MINITOOLAI_API_KEY_FILE": SECRET + "\0"}, "MINITOOLAI_API_KEY_FILE must name a file that can be read"),
        ({"MINITOOLAI_API_KEY_FILE": ""}, "MINITOOLAI_API_KEY_FILE must name a file that can be read"),
        (
            {"MINITOOLAI_API_KEY_FILE": "{folder}/empty"},
            "MINITOOLAI_API_KEY_FILE must name a file that can be read (it is empty)",
        ),
        ({"MINITOOLAI_API_KEY_FILE": "{folder}/two"}, "MINITOOLAI_API_KEY must be plain text on one line"),
        ({"MINITOOLAI_API_KEY_FILE": "{folder}/latin-1"}, "can be read (not plain text)"),
        (
            {"MINITOOLAI_API_KEY_FILE": "{folder}/two", "MINITOOLAI_API_KEY": SECRET},
            "MINITOOLAI_API_KEY and MINITOOLAI_API_KEY_FILE are both set",
        ),
        ({"GATEWAY_DRIAN_S_FILE": "{folder}/two"}, "GATEWAY_DRIAN_S_FILE, which is no setting"),
        ({"GATEWAY_REDIS_PASSWORD": SECRET}, "is for the server that REDIS_URL names"),
    ],
)
def test_a_wrong_file_of_a_value_stops_the_start(
    config: Path, tmp_path: Path, environ: dict[str, str], says: str
) -> None:
    """In one line that repeats neither the secret nor a path: somebody may have put the secret itself there."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "two").write_text(f"{SECRET}\n{SECRET}\n")
    (tmp_path / "latin-1").write_bytes(b"\xe9")
    given = {variable: text.replace("{folder}", str(tmp_path)) for variable, text in environ.items()}
    with pytest.raises(SettingsError) as refused:
        load_settings({"GATEWAY_CONFIG": str(config), **given})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)


def test_what_kubernetes_injects_is_ignored(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A service named gateway sets these in every container beside it; each is named in a warning."""
    injected = {
        "GATEWAY_PORT": "tcp://10.0.0.7:8080",
        "GATEWAY_SERVICE_HOST": "10.0.0.7",
        "GATEWAY_SERVICE_PORT": "8080",
        "GATEWAY_SERVICE_PORT_HTTP": "8080",
        "GATEWAY_PORT_8080_TCP": "tcp://10.0.0.7:8080",
        "GATEWAY_PORT_8080_TCP_ADDR": "10.0.0.7",
        "GATEWAY_PORT_8080_TCP_PROTO": "tcp",
    }
    with caplog.at_level(logging.WARNING):
        settings = load_settings({"GATEWAY_CONFIG": str(config), **injected})
    assert 8080 == settings.port
    warned = [record.getMessage() for record in caplog.records]
    assert sorted(injected) == sorted(re.split("[= ]", text)[0] for text in warned)


def test_what_our_own_clients_read_is_no_mistake(config: Path) -> None:
    """The command line and the examples have variables of their own; others' variables are nobody's business."""
    others = {"GATEWAY_URL": "http://127.0.0.1:8080", "GATEWAY_KEY": "sk", "PATH": "/bin", "REDIS_HOST": "x"}
    assert 8080 == load_settings({"GATEWAY_CONFIG": str(config), **others}).port
