"""Where settings come from: a TOML file and the environment, each value turned into the type its setting has.

A variable is `GATEWAY_` and the setting's name in capitals. Those that are better known by other names stand in
`_ENVIRONMENT_NAMES`; they go by either. With `_FILE` behind it a variable names a file that holds the value, as secrets
are handed to containers.
"""

import logging
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("gateway.settings")

_ENVIRONMENT_NAMES = {
    "upstream_api_key": "MINITOOLAI_API_KEY",
    "upstream_base_url": "MINITOOLAI_BASE_URL",
    "redis_url": "REDIS_URL",
}
_CLIENT_VARIABLES = {"GATEWAY_CONFIG", "GATEWAY_URL", "GATEWAY_KEY"}
"""Known variables that are no settings: where the file is, and what our command line and examples read."""
SECRETS = {"upstream_api_key", "redis_password", "admin_key", "metrics_token"}
"""Settings whose value no message may repeat."""

Kinds = Mapping[str, object]
"""The type of each setting, by its name."""


class SettingsError(ValueError):
    """A setting is unknown or wrong; the text is one line: which, where, what would be right."""


def from_file(path: Path, kinds: Kinds, *, required: bool) -> dict[str, Any]:
    """The settings a TOML file names. Raises SettingsError: it cannot be read, or has something unknown or wrong."""
    if not path.exists() and not required:
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"GATEWAY_CONFIG={path} cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    unknown = sorted(set(document) - set(kinds))
    if unknown:
        raise SettingsError(f"{path}: there is no setting {unknown[0]!r}; docs/settings.md lists all")
    return {name: _typed(name, value, kinds[name], str(path)) for name, value in document.items()}


def from_environment(environ: Mapping[str, str], kinds: Kinds) -> dict[str, Any]:
    """The settings the environment names. Raises SettingsError: one is unknown, wrong, or set twice and differently."""
    by_variable = {variable: name for name in kinds for variable in (environment_name(name), _gateway_name(name))}
    values = {}
    environ = _with_files(environ, by_variable)
    for variable, text in environ.items():
        name = by_variable.get(variable)
        if name is None:
            _refuse_unknown(variable, text)
        elif _is_service_link(text) and name in ("host", "port"):
            log.warning("%s=%s is what Kubernetes injects for a service; ignored", variable, text)
        elif environ.get(environment_name(name), text) != environ.get(_gateway_name(name), text):
            raise SettingsError(f"{environment_name(name)} and {_gateway_name(name)} differ; set one of them")
        else:
            values[name] = _parsed(name, text, kinds[name], variable)
    return values


def environment_name(setting: str) -> str:
    """How a setting is called in the environment."""
    return _ENVIRONMENT_NAMES.get(setting, _gateway_name(setting))


def _gateway_name(setting: str) -> str:
    return f"GATEWAY_{setting.upper()}"


def _with_files(environ: Mapping[str, str], variables: Iterable[str]) -> dict[str, str]:
    """The environment with each `<VARIABLE>_FILE` replaced by what its file holds, less newlines at its end."""
    plain = dict(environ)
    for variable in variables:
        by_file = f"{variable}_FILE"
        if by_file in plain and variable in plain:
            raise SettingsError(f"{variable} and {by_file} are both set; set one of them")
        if by_file in plain:
            plain[variable] = _file_text(Path(plain.pop(by_file)), by_file)
    return plain


def _file_text(path: Path, variable: str) -> str:
    """The message never repeats the path: somebody may have put the secret itself there."""
    try:
        text, reason = path.read_text(encoding="utf-8").rstrip("\r\n"), "it is empty"
    except (OSError, ValueError) as error:
        text, reason = "", getattr(error, "strerror", None) or "not plain text"
    if not text:
        raise SettingsError(f"{variable} must name a file that can be read ({reason})")
    return text


def _refuse_unknown(variable: str, text: str) -> None:
    if not variable.startswith("GATEWAY_") or variable in _CLIENT_VARIABLES:
        return
    if _is_service_link(text) or variable.startswith(("GATEWAY_SERVICE_", "GATEWAY_PORT_")):
        log.warning("%s is what Kubernetes injects for a service named gateway; ignored", variable)
        return
    raise SettingsError(f"the environment has {variable}, which is no setting; docs/settings.md lists all")


def _is_service_link(text: str) -> bool:
    return text.startswith(("tcp://", "udp://"))


def _parsed(name: str, text: str, kind: object, where: str) -> object:
    """A value from the environment's text."""
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise SettingsError(f"{where}={text} must be true or false")
        return text.lower() in ("true", "1", "yes")
    if kind in (int, float):
        try:
            number = int(text) if kind is int else float(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise SettingsError(f"{where}={text} must be {wanted}") from None
        return _typed(name, number, kind, where)
    if kind is str:
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _typed(name: str, value: object, kind: object, where: str) -> object:
    """A value from TOML, checked against the type of its setting."""
    if kind == tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise SettingsError(f"{where}: {name} must be a list of texts")
        return tuple(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(kind, type) or not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        shown = "" if name in SECRETS else f", not {value!r}"
        raise SettingsError(f"{where}: {name} must be of type {getattr(kind, '__name__', kind)}{shown}")
    return value
