"""Parts of the gateway that are made of the settings alone: what `app` builds everything else around."""

from ipaddress import ip_network

from gateway.billing.budget import Calendar
from gateway.billing.price_schedule import PriceSchedule
from gateway.billing.principal import ScopeKind
from gateway.brake import Network
from gateway.call_log import Lines
from gateway.metrics import Metrics
from gateway.settings import WEEKDAYS, Settings
from gateway.shared_metrics import Share
from gateway.store.keys import DEFAULT_ORG
from gateway.store.scripts import SCRIPTS
from gateway.upstream.choice import leg_to
from gateway.upstream.leg import UpstreamLeg
from gateway.web.dataplane import IMAGE_ERROR_FIELDS, JOBS, endpoints
from gateway.web.door import DoorRules
from gateway.web.pages import PAGE_BODY_BYTES_MAX
from gateway.web.polls import PollRules
from gateway.web.room import Room
from gateway.web.services import CallLimits, UpstreamKey
from gateway.wire.call import Endpoint
from gateway.wire.chat import ChatRules
from gateway.wire.images import ImageRules


def calendar_of(settings: Settings) -> Calendar:
    return Calendar(settings.zone, WEEKDAYS.index(settings.first_weekday))


def upstream_keys_of(settings: Settings) -> dict[str, UpstreamKey]:
    """By organisation, of which there is one."""
    return {DEFAULT_ORG: UpstreamKey(settings.upstream_api_key)}


def upstream_of(settings: Settings) -> UpstreamLeg:
    return leg_to(
        settings.upstream_base_url,
        connect_timeout_s=settings.upstream_connect_timeout_s,
        answer_timeout_s=settings.upstream_answer_timeout_s,
        connections_max=settings.upstream_connections_max,
    )


def metrics_of(settings: Settings, prices: PriceSchedule, share: Share | None, lines: Lines) -> Metrics:
    bounds = settings.metrics_teams_max, settings.metrics_users_max
    return Metrics(*bounds, share, models=prices.models(), scripts=SCRIPTS, lines=lines)


def scrape_bounds_of(settings: Settings) -> dict[ScopeKind, int]:
    return {"organisation": 1, "team": settings.metrics_teams_max, "user": settings.metrics_users_max}


def call_limits_of(settings: Settings) -> CallLimits:
    return CallLimits(
        calls_max=settings.calls_max,
        body_bytes_max=settings.body_bytes_max,
        body_timeout_s=settings.body_timeout_s,
        answer_s_max=settings.answer_s_max,
        whole_answer_bytes_max=settings.whole_answer_bytes_max,
        client_write_timeout_s=settings.client_write_timeout_s,
        drain_s=settings.drain_s,
        drain_bytes_max=settings.drain_bytes_max,
        # Clients that leave must not take the connections of those who stay.
        drains_max=max(1, settings.upstream_connections_max // 2),
        settle_wait_s=settings.settle_wait_s,
        job_first_poll_s=settings.job_first_poll_s,
    )


def proxies_of(settings: Settings) -> tuple[Network, ...]:
    """Those whose X-Forwarded-For is believed."""
    return tuple(map(ip_network, settings.trusted_proxies))


def door_rules_of(settings: Settings) -> DoorRules:
    return DoorRules(
        connections_max=settings.connections_max,
        connections_per_address_max=settings.connections_per_address_max,
        trusted_proxies=proxies_of(settings),
        head_timeout_s=settings.head_timeout_s,
        write_timeout_s=settings.client_write_timeout_s,
    )


def room_of(settings: Settings, metrics: Metrics) -> Room:
    largest_bytes = max(settings.body_bytes_max, PAGE_BODY_BYTES_MAX)
    return Room(max(settings.bodies_bytes_max, largest_bytes), largest_bytes, metrics.bodies_bytes.inc)


def poll_rules_of(settings: Settings) -> PollRules:
    return PollRules(
        path=JOBS,
        upstream_path=settings.job_path,
        error_fields=IMAGE_ERROR_FIELDS,
        refund_failed=settings.refund_failed_images,
        first_s=settings.job_first_poll_s,
        longest_s=settings.job_longest_poll_s,
        abandon_s=settings.job_abandon_s,
    )


def endpoints_of(settings: Settings) -> tuple[Endpoint, ...]:
    return endpoints(*inspections_of(settings), chat_path=settings.chat_path, image_path=settings.image_path)


def inspections_of(settings: Settings) -> tuple[ChatRules, ImageRules]:
    """What calls are checked by."""
    chat = ChatRules(
        roles=settings.chat_roles,
        extra_fields=frozenset(settings.chat_extra_fields),
        max_completion_tokens_default=settings.max_completion_tokens_default,
    )
    return chat, ImageRules(schedulers=settings.image_schedulers)
