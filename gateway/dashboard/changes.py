"""Pages that change something: a form, what became of it, and a new secret, which is shown once.

What may be changed, by whom, is the control plane's to say, which makes the change and writes it down; here it is asked
for. A form is sent to its own address; when it is done the browser is led back to the scope, so that going back or
loading again sends nothing. Where a secret is shown, loading again sends the form again, and its number tells the
control plane that this was done: no second key, no second secret.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.errors import AuthenticationError, GatewayError, NotFound, ScopeBlocked
from gateway.billing.principal import Role, Scope, ScopeKind
from gateway.billing.reach import Reach
from gateway.billing.scope import ScopeSettings
from gateway.dashboard import answers, words
from gateway.dashboard.figures import Figures
from gateway.dashboard.form_tokens import new_form_token, once_of
from gateway.dashboard.forms import FORMS, Form, Typed, offered, wish_of
from gateway.dashboard.frame import HOME, LOGIN, Frame, Visit, id_of
from gateway.dashboard.visitors import may_open, reach_of_visitor, sees_all
from gateway.wire.scopes import instant_ms
from gateway.wire.wish import COLLECTIONS, KIND_OF, Action, Resource, Wish

_TOKEN = "form"  # noqa: S105  # the name of a field


class ControlPlane(Protocol):
    """Makes changes, for whoever may ask for them, and says beforehand what would not be refused for who they are."""

    async def change(self, org: str, digest: str, wish: Wish, request_id: str) -> Mapping[str, object]:
        """For the owner of the secret with this digest. Returns the control plane's answer; raises its refusal."""

    async def permitted(
        self, role: Role, reach: Reach, settings: ScopeSettings
    ) -> Collection[tuple[Resource, Action]]: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """A form for one scope: where it is sent, and the token that it carries."""

    form: Form
    path: str
    token: str


class Changes:
    """Handlers of `/dashboard/{list}/{id}/{form}`, and what is offered on a scope's own page."""

    def __init__(self, frame: Frame, figures: Figures, control: ControlPlane) -> None:
        self._frame = frame
        self._figures = figures
        self._control = control

    def routes(self) -> list[RuledRoute]:
        path = "/dashboard/{list}/{id}/{form}"
        return [self._frame.guarded("GET", path, self._show), self._frame.guarded("POST", path, self._send)]

    async def offers(self, visit: Visit, settings: ScopeSettings) -> list[Offer]:
        """What the visitor may change of a scope, and make right below it."""
        visitor = visit.visitor
        permitted = await self._control.permitted(visitor.role, reach_of_visitor(visitor), settings)
        return [_offer_of(visit, settings, form) for form in offered(settings, permitted)]

    async def _show(self, request: Request, visit: Visit) -> Response:
        form, settings = _form(request)[0], await self._settings(request, visit)
        offer = await self._offer(visit, settings, form)
        if offer is None:
            raise NotFound(f"There is no page {request.url.path}.")
        return answers.page(self._page(visit, settings, offer, {}))

    async def _send(self, request: Request, visit: Visit) -> Response:
        form, typed = _form(request)[0], await answers.form_fields(request)
        # It may have taken its time: who sent it is looked at again now that it is there.
        again = await self._frame.visit(request, visit.language)
        return answers.redirect(LOGIN) if again is None else await self._sent(request, again, form, typed)

    async def _sent(self, request: Request, visit: Visit, form: Form, typed: dict[str, str]) -> Response:
        once = once_of(typed.pop(_TOKEN, ""), visit.session.token, visit.path)
        if once is None:
            return self._frame.fault(visit.language, 403)
        settings = await self._settings(request, visit)
        wish = wish_of(form, settings, typed, once, self._figures.midnight_ms)
        session = visit.session
        try:
            done = await self._control.change(session.org, session.digest, wish, request.state.request_id)
        except (AuthenticationError, ScopeBlocked):
            raise
        except GatewayError as error:
            request.state.error = error.code
            return await self._refused(visit, settings, form, typed, error)
        if "key" in done:
            return answers.page(self._secret_page(visit, form, done))
        made = Scope(KIND_OF[wish.resource], str(done["id"])) if form.makes_scope else settings.scope
        return answers.redirect(path_of(made))

    async def _refused(
        self, visit: Visit, settings: ScopeSettings, form: Form, typed: Typed, error: GatewayError
    ) -> Response:
        """The form once more, as it was filled in, with the reason; for who may not send it the reason alone."""
        offer = await self._offer(visit, settings, form)
        if offer is None:
            return self._frame.fault(visit.language, error.status, error)
        return answers.page(
            self._page(visit, settings, offer, typed, error), error.status, retry_after_s=error.retry_after_s
        )

    async def _offer(self, visit: Visit, settings: ScopeSettings, form: Form) -> Offer | None:
        return next((offer for offer in await self.offers(visit, settings) if offer.form == form), None)

    async def _settings(self, request: Request, visit: Visit) -> ScopeSettings:
        """Of the scope that a form is about. Raises NotFound: not for this visitor."""
        scope = Scope(_form(request)[1], id_of(request))
        settings, _ = await self._figures.scope(visit.visitor.org, scope)
        if not may_open(visit.visitor, settings):
            raise NotFound(f"There is no {scope.kind} {scope.id}.")
        return settings

    def _page(
        self, visit: Visit, settings: ScopeSettings, offer: Offer, typed: Typed, error: GatewayError | None = None
    ) -> str:
        fields = [field for field in offer.form.fields if field.is_for_all or sees_all(visit.visitor)]
        return self._frame.render(
            visit,
            "change.html",
            settings=settings,
            offer=offer,
            fields=fields,
            typed=typed,
            back=path_of(settings.scope),
            message=words.REFUSED_CHANGES.get(error.code, words.REFUSED_CHANGE) if error else "",
            sentence=str(error) if error else "",
            wrong=(error.param or "").rpartition(".")[2] if error else "",
        )

    def _secret_page(self, visit: Visit, form: Form, done: Mapping[str, object]) -> str:
        until = done.get("old_secret_until")
        return self._frame.render(
            visit,
            "secret.html",
            form=form,
            key_id=done["id"],
            secret=done["key"],
            old_until_ms=instant_ms(until, "old_secret_until") if until else 0,
        )


def path_of(scope: Scope) -> str:
    """The address of a scope's own page."""
    return HOME if scope.kind == "organisation" else f"/dashboard/{COLLECTIONS[scope.kind]}/{scope.id}"


def _form(request: Request) -> tuple[Form, ScopeKind]:
    """What an address asks for, and of which kind of scope. Raises NotFound: there is no such form of that kind."""
    form, kind = FORMS.get(request.path_params["form"]), KIND_OF.get(request.path_params["list"])
    if form is None or kind is None or kind not in form.of:
        raise NotFound(f"There is no page {request.url.path}.")
    return form, kind


def _offer_of(visit: Visit, settings: ScopeSettings, form: Form) -> Offer:
    path = f"/dashboard/{COLLECTIONS[settings.kind]}/{settings.id}/{form.name}"
    return Offer(form, path, new_form_token(visit.session.token, path))
