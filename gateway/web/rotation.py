"""Rotation on the control plane: a key gets a new secret, and its old one stays good while programs take up the new."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.budget import Calendar, instant
from gateway.billing.errors import IdempotencyUnreplayable, InvalidRequest
from gateway.billing.principal import Scope, digest_of
from gateway.store.scopes import Scopes
from gateway.store.secrets import Secrets
from gateway.web.admin import CHANGED_BY, id_of
from gateway.web.auth import Authenticator, Caller
from gateway.web.http import Done, answered, guarded, json_fields
from gateway.web.idempotency import asked_once, key_sent
from gateway.web.reached import ReachedScopes
from gateway.web.scope_answers import scope_json
from gateway.web.scope_changes import new_sub_key
from gateway.wire.fields import refuse_unknown_fields
from gateway.wire.strictjson import JSONObject

GRACE_S_DEFAULT = 24 * 3600
GRACE_S_MAX = 30 * 24 * 3600


class KeyRotation:
    """Handler of `POST /admin/v1/keys/{id}/rotate`, and what it does."""

    def __init__(self, auth: Authenticator, scopes: Scopes, secrets: Secrets, calendar: Calendar) -> None:
        self._auth = auth
        self._scopes = scopes
        self._secrets = secrets
        self._calendar = calendar

    def routes(self) -> list[RuledRoute]:
        return [guarded("POST", "/admin/v1/keys/{id}/rotate", self._auth, CHANGED_BY["key"], self._rotate)]

    async def _rotate(self, request: Request, caller: Caller) -> Response:
        key_id = id_of(request)
        fields = await json_fields(request, empty=True)
        return answered(await self.rotate(key_id, fields, key_sent(request), caller))

    async def rotate(self, key_id: str, fields: JSONObject, key: str | None, caller: Caller) -> Done:
        """Give a key within the caller's reach a new secret, once for an Idempotency-Key.

        It is in this answer and nowhere else, as at the key's creation. Raises InvalidRequest, UnknownField; NotFound,
        PermissionDenied; IdempotencyConflict, IdempotencyUnreplayable; PreconditionFailed.
        """
        grace_s = _grace_s(fields)
        stored = await ReachedScopes(self._scopes, caller.reach).read_to_change(Scope("key", key_id))
        settings = stored.settings
        if settings.revoked_at_ms:
            raise InvalidRequest(f"Key {key_id} is revoked, which is for good; create another.", param="id")
        asked = asked_once("rotation", key, {"key": key_id, "grace_s": grace_s}, caller)
        secret = new_sub_key(caller.org)
        rotated = await self._secrets.rotate(caller.org, stored, digest_of(secret), grace_s * 1000, asked)
        if rotated is None:
            raise IdempotencyUnreplayable(
                f"Key {key_id} was rotated by the first request with this Idempotency-Key; its secret was in that "
                "answer and is not kept. If that answer is lost, rotate once more under a new Idempotency-Key.",
                param="Idempotency-Key",
                details={"scope": "key", "id": key_id},
            )
        shown = scope_json(settings, stored.state, self._calendar.spans_at(await self._scopes.now_ms()))
        return Done({**shown, "key": secret, "old_secret_until": instant(rotated.old_until_ms)})


def _grace_s(fields: Mapping[str, object]) -> int:
    refuse_unknown_fields(fields, ("grace_s",), "A rotation")
    grace_s = fields.get("grace_s", GRACE_S_DEFAULT)
    if not isinstance(grace_s, int) or isinstance(grace_s, bool) or not 0 <= grace_s <= GRACE_S_MAX:
        raise InvalidRequest(
            f"grace_s must be a whole number of seconds from 0, which ends the old secret at once, to {GRACE_S_MAX}.",
            param="grace_s",
        )
    return grace_s
