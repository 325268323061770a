"""What a key has used, told to its holder, and no other key's."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.principal import Principal
from gateway.web.auth import Authenticator
from gateway.web.holder import for_holder
from gateway.web.http import query
from gateway.web.searches import check_there
from gateway.web.usage_reports import REPORT_PARAMS, Asked, UsageReports, check_format, own_grouping, usage_answer


class OwnUsage:
    """Handler of `GET /v1/usage`."""

    def __init__(self, auth: Authenticator, reports: UsageReports) -> None:
        self._auth = auth
        self._reports = reports

    def routes(self) -> list[RuledRoute]:
        return [for_holder("GET", "/v1/usage", self._auth, self._usage)]

    async def _usage(self, request: Request, principal: Principal) -> Response:
        params = query(request, {**REPORT_PARAMS, "group_by": "day"})
        groups = own_grouping(params["group_by"])
        check_format(params["format"])
        asked = Asked(groups, params["from"], params["to"], partial(check_there, request))
        rows = await self._reports.rows_of_key(principal, asked)
        return await usage_answer(groups, rows, params["format"])
