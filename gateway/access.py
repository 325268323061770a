"""Who may use what: each route says it where it is declared, and what does not say it is not served.

`app` puts its router together of these routes alone. That the word beside a route is true is for its endpoint to see
to: `web.http.guarded` and `web.holder.for_holder` make both at once.
"""

from collections.abc import Awaitable, Callable
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Who = Literal["anyone", "holder", "viewer", "manager", "reader", "writer", "scraper", "visitor"]
"""Who may use a route.

anyone: no key is asked for, and nothing of anybody's is shown.
holder: whoever sends a good sub-key, of any role; sees what is that key's own.
viewer: every role, each as far as its reach (`billing.reach`). manager: roles that change what is in their reach.
reader: roles that read the whole organisation. writer: the role that changes it.
scraper: whoever sends the metrics token or the administrator's key.
visitor: whoever has logged in to the dashboard; `dashboard.visitors` says what each sees. What they change there goes
by the rule of the control plane's route for it (`web.form_desk`).
"""

Endpoint = Callable[[Request], Awaitable[Response]]


class RuledRoute(Route):
    """One method of one path (GET answers HEAD, too), and who may use it."""

    def __init__(self, method: str, path: str, who: Who, endpoint: Endpoint) -> None:
        super().__init__(path, endpoint, methods=[method])
        self.who = who
