"""Environment + TOML → one frozen `Settings`. A wrong setting means no start, with one clear line.

Every setting stands once, in `Settings`, with its default and its meaning. In `config/gateway.toml` it has the same
name; in the environment, which wins over the file, the variable that `settings_sources` says.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import ip_network
from pathlib import Path
from typing import get_type_hints
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.billing.budget import Calendar
from gateway.billing.price_file import price_schedule
from gateway.billing.price_schedule import PriceSchedule
from gateway.billing.prices import PriceListError
from gateway.settings_sources import SECRETS, SettingsError, environment_name, from_environment, from_file

__all__ = [
    "DEFAULT_CONFIG",
    "WEEKDAYS",
    "Settings",
    "SettingsError",
    "environment_name",
    "load_prices",
    "load_settings",
]

DEFAULT_CONFIG = "config/gateway.toml"
EXPIRED_HOLDS = ("used", "hold")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Times end in `_s` (seconds), sizes in `_bytes_max`, counts in `_max`."""

    upstream_api_key: str = ""
    """The organisation's key at MiniToolAI."""
    upstream_base_url: str = "https://minitoolai.com"
    """Scheme and host of the upstream."""
    chat_path: str = "/api/chat-completions/"
    """The upstream's path for chat (MiniToolAI has changed it before)."""
    image_path: str = "/api/texttoimage/"
    """The upstream's path for image submissions."""
    job_path: str = "/api/texttoimage/jobs/"
    """The upstream's path for image jobs."""

    redis_url: str = ""
    """One server, Sentinel or a cluster; empty runs an embedded Valkey in the data directory."""
    redis_password: str = ""
    """The password of the server in redis_url, where that has none."""
    data_dir: str = ".gateway"
    """Embedded Redis and generated secrets."""
    prices_file: str = ""
    """The price list; empty means prices.toml beside the configuration file."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8080
    """Port to listen on; 0 takes a free one."""
    workers: int = 1
    """Processes that serve; with more than one a further process looks after them."""
    admin_key: str = ""
    """The first administrator's key; empty makes one at first start."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies in front of the gateway, whose X-Forwarded-For is believed."""
    metrics_token: str = ""
    """A bearer token that opens /metrics beside the administrator's key."""

    metrics_teams_max: int = 200
    """Teams with series of their own in /metrics; further ones count as other."""
    metrics_users_max: int = 1000
    """Users with series of their own in /metrics; further ones count as other."""

    timezone: str = "UTC"
    """IANA name of the zone whose midnights bound days, weeks and months; fixed by the first start."""
    first_weekday: str = "monday"
    """The day a week's budget begins; fixed by the first start."""

    lease_s: float = 30
    """How long a hold stands without being renewed."""
    expired_holds: str = "used"
    """What a hold that expires is charged: "used", as far as it is known, or the whole "hold"."""
    drain_s: float = 60
    """How long an upstream is read on after its client left."""
    grace_s: float = 30
    """How long SIGTERM waits for open streams."""
    settle_wait_s: float = 0.25
    """How long an answer's end waits for its settlement at most."""
    redis_timeout_s: float = 2
    """How long Redis may take to answer before a call is refused."""

    upstream_connect_timeout_s: float = 5
    """How long connecting to the upstream, or waiting for a free connection, may take."""
    upstream_answer_timeout_s: float = 120
    """How long the upstream may stay silent, before its answer or within it."""
    answer_s_max: float = 3600
    """How long an answer of the upstream may take in all, however much of it comes; what came by then is billed."""
    upstream_connections_max: int = 512
    """Connections to the upstream, in use and kept alive."""
    client_write_timeout_s: float = 60
    """How long a client may read nothing before it counts as gone."""
    head_timeout_s: float = 10
    """How long a request's head may take to arrive, and a new connection's first byte."""
    body_timeout_s: float = 30
    """How long a request's body may take to arrive; each 64 KiB that came are another second."""

    connections_max: int = 4096
    """Connections of clients to one process; more are refused."""
    connections_per_address_max: int = 1024
    """The same of one address, or of one IPv6 /64; not of trusted_proxies."""
    calls_max: int = 2048
    """Calls of the data plane that one process serves at a time; more are refused."""
    body_bytes_max: int = 33_554_432
    """A request's body."""
    bodies_bytes_max: int = 268_435_456
    """All bodies above 64 KiB that one process has in hand; half of it those of one user. More are refused."""
    whole_answer_bytes_max: int = 8_388_608
    """An upstream's answer that is not a stream."""
    drain_bytes_max: int = 67_108_864
    """What is read on from the upstream after its client left."""

    chat_roles: tuple[str, ...] = ("developer", "system", "user", "assistant")
    """Roles a message may have."""
    chat_extra_fields: tuple[str, ...] = (
        "top_p", "stop", "seed", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs",
        "response_format", "user", "metadata", "n",
    )  # fmt: skip
    """Fields MiniToolAI does not document but that cannot raise a price above its hold; they are forwarded."""
    max_completion_tokens_default: int = 1000
    """Written into a chat request that names no maximum."""
    image_schedulers: tuple[str, ...] = (
        "Euler a", "Euler", "LMS", "Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE",
        "DPM fast", "LMS Karras", "DPM2 Karras", "DPM2 a Karras", "DPM++ 2S a Karras", "DPM++ 2M Karras",
        "DPM++ SDE Karras", "DPM++ 2M SDE Karras",
    )  # fmt: skip
    """Schedulers an image may ask for."""

    refund_failed_images: bool = True
    """Whether a job that fails gives its price back."""
    image_wait_s: float = 120
    """How long /v1/images/generations waits for its pictures; what is not done then is answered as pending."""
    job_first_poll_s: float = 30
    """How long after its submission the gateway first polls a job that nobody polled to its end."""
    job_longest_poll_s: float = 600
    """The longest pause between two such polls."""
    job_abandon_s: float = 86_400
    """How long a job may stay without an end before the gateway stops asking; it stays charged."""

    @property
    def charges_whole_holds(self) -> bool:
        return self.expired_holds == "hold"

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


_ADMIN_KEY_CHARS_MIN = 16
_OWN_HOSTS = ("127.0.0.1", "::1", "localhost")
_LEAST = {
    "workers": 1,
    **dict.fromkeys(("upstream_connections_max", "connections_max", "connections_per_address_max", "calls_max"), 1),
    "body_bytes_max": 1024,
    "whole_answer_bytes_max": 1024,
    "max_completion_tokens_default": 1,
    "lease_s": 1,
    **dict.fromkeys(("redis_timeout_s", "client_write_timeout_s", "head_timeout_s", "body_timeout_s"), 0.05),
    **dict.fromkeys(("upstream_connect_timeout_s", "upstream_answer_timeout_s", "answer_s_max"), 0.05),
}
_MOST = {
    "port": 65_535,
    "workers": 256,
    "job_abandon_s": 172_800,  # a refund needs the job's hold, which is kept for two days
}


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Read the file that GATEWAY_CONFIG names, then the environment over it.

    Raises SettingsError for anything unknown, of the wrong type, out of range, or contradicting.
    """
    path = Path(environ.get("GATEWAY_CONFIG") or DEFAULT_CONFIG)
    kinds = get_type_hints(Settings)
    values = {**from_file(path, kinds, required="GATEWAY_CONFIG" in environ), **from_environment(environ, kinds)}
    settings = Settings(**values)
    if not settings.prices_file:
        settings = replace(settings, prices_file=str(path.parent / "prices.toml"))
    _check(settings)
    return settings


def load_prices(settings: Settings) -> PriceSchedule:
    """Read the price list; its dates are days of the settings' time zone.

    Raises SettingsError: missing or wrong; without prices nothing could be billed.
    """
    path = Path(settings.prices_file)
    try:
        return price_schedule(tomllib.loads(path.read_text(encoding="utf-8")), Calendar(settings.zone))
    except OSError as error:
        raise SettingsError(f"the price list {path} cannot be read ({error.strerror}); set prices_file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    except PriceListError as error:
        raise SettingsError(f"{path}: {error}") from None


def _check(settings: Settings) -> None:
    for one in fields(settings):
        value = getattr(settings, one.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            least = _LEAST.get(one.name, 0)
            if not math.isfinite(value) or value < least:
                raise SettingsError(f"{environment_name(one.name)} ({one.name}) must be {least} or more, not {value}")
            if value > (most := _MOST.get(one.name, math.inf)):
                raise SettingsError(f"{environment_name(one.name)} ({one.name}) must be at most {most}, not {value}")
    if settings.first_weekday not in WEEKDAYS:
        raise SettingsError(f"first_weekday must be one of {', '.join(WEEKDAYS)}, not {settings.first_weekday!r}")
    if settings.expired_holds not in EXPIRED_HOLDS:
        raise SettingsError(f"expired_holds must be one of {', '.join(EXPIRED_HOLDS)}, not {settings.expired_holds!r}")
    try:
        _ = settings.zone
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingsError(
            f"timezone must be an IANA name such as Asia/Ho_Chi_Minh, not {settings.timezone!r}"
        ) from None
    if not _is_http_url(settings.upstream_base_url):
        raise SettingsError("MINITOOLAI_BASE_URL (upstream_base_url) must be a URL such as https://minitoolai.com")
    if settings.bodies_bytes_max < settings.body_bytes_max:
        raise SettingsError(
            f"bodies_bytes_max ({settings.bodies_bytes_max}) must be body_bytes_max ({settings.body_bytes_max}) or more"
        )
    for name in ("chat_path", "image_path", "job_path"):
        if not getattr(settings, name).startswith("/"):
            raise SettingsError(f"{name} must begin with a slash")
    _check_proxies(settings)
    _check_secrets(settings)


def _check_proxies(settings: Settings) -> None:
    for text in settings.trusted_proxies:
        try:
            ip_network(text)
        except ValueError:
            raise SettingsError(
                f"trusted_proxies must be addresses or networks such as 10.0.0.0/8, not {text!r}"
            ) from None


def _check_secrets(settings: Settings) -> None:
    """Keys travel in headers, so they are visible ASCII; no message repeats one."""
    for name in sorted(SECRETS):
        secret = getattr(settings, name)
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise SettingsError(f"{environment_name(name)} must be plain text on one line, without any space")
    if settings.redis_password and not settings.redis_url:
        raise SettingsError("GATEWAY_REDIS_PASSWORD (redis_password) is for the server that REDIS_URL names; set both")
    if settings.admin_key and len(settings.admin_key) < _ADMIN_KEY_CHARS_MIN and not _is_for_this_machine(settings):
        raise SettingsError(
            f"GATEWAY_ADMIN_KEY must have at least {_ADMIN_KEY_CHARS_MIN} characters where others than this machine "
            "can connect: whoever guesses it owns the books"
        )


def _is_for_this_machine(settings: Settings) -> bool:
    """Whether it listens to this machine alone, without a proxy that lets others in."""
    return settings.host in _OWN_HOSTS and not settings.trusted_proxies


def _is_http_url(text: str) -> bool:
    """Scheme, host, maybe port and path. No user in it: httpx would send that in place of the key."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    return plain and url.scheme in ("http", "https") and bool(url.hostname) and url.username is None
