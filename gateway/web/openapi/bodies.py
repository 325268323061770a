"""What requests have in their bodies, as JSON Schemas.

What an installation may set (roles, schedulers, further fields of a chat) comes from the rules that its calls are
checked by.
"""

from collections.abc import Mapping
from typing import get_args

from gateway.billing.budget import BUDGET_WINDOWS
from gateway.billing.limits import LIMIT_MAX, RATE_OF_LIMIT
from gateway.billing.price_rows import CHAT_RATES, CHAT_SIZES, UNIT_RATES
from gateway.billing.principal import Role, ScopeKind
from gateway.web.openapi.schemas import (
    ANY,
    FLAG,
    ID,
    INSTANT,
    INTEGER,
    NAME,
    NOTE,
    PRICE_USD,
    SIGNED_USD,
    TEXT,
    USD,
    Schema,
    array,
    asked,
    between,
    closed,
    nullable,
    one_of,
    ref,
    within,
)
from gateway.web.rotation import GRACE_S_MAX
from gateway.wire.chat import COMPLETION_TOKENS_MAX, ChatRules
from gateway.wire.chat_options import CHOICES_MAX
from gateway.wire.images import JOB_CHARACTERS_MAX, SIDES, ImageRules
from gateway.wire.openai_images import IMAGES_MAX, RESPONSE_FORMATS
from gateway.wire.vision import DETAILS


def bodies(chat: ChatRules, images: ImageRules) -> dict[str, Schema]:
    """Every body by its name."""
    return {**_calls(chat, images), **_PARTS, **_SCOPES, **_MONEY}


def _calls(chat: ChatRules, images: ImageRules) -> dict[str, Schema]:
    own = _image_members(images)
    sides = {side: nullable(within(images.side_pixels_min, images.side_pixels_max)) for side in SIDES}
    openai = own | {
        "n": nullable(within(1, IMAGES_MAX)),
        "size": nullable({"type": "string", "pattern": "^(auto|[0-9]{3,4}x[0-9]{3,4})$"}),
        "response_format": nullable(one_of(*RESPONSE_FORMATS)),
        "user": nullable(TEXT),
    }
    native_chat = asked(_chat_members(chat) | {"stream": nullable(FLAG)}, "messages", "model")
    openai_chat = asked(
        {
            **_chat_members(chat),
            "stream": nullable(FLAG),
            "stream_options": nullable(asked({"include_usage": nullable(FLAG)})),
        },
        "messages",
        "model",
    )
    native_image = asked(own | sides, "model", "prompt")
    openai_image = asked(openai, "model", "prompt")
    return {
        "ChatRequest": native_chat,
        "OpenAIChatRequest": openai_chat,
        "ImageRequest": native_image,
        "OpenAIImageRequest": openai_image,
        "EstimateRequest": {"anyOf": [ref("OpenAIChatRequest"), ref("ImageRequest"), ref("OpenAIImageRequest")]},
    }


def _chat_members(rules: ChatRules) -> dict[str, Schema]:
    part: Schema = {
        "anyOf": [
            closed({"type": one_of("text"), "text": TEXT}),
            closed({"type": one_of("image_url"), "image_url": ref("ImageURL")}),
        ]
    }
    message = asked(
        {
            "role": one_of(*rules.roles),
            "content": {"anyOf": [TEXT, array(part, minItems=1)]},
            "name": nullable({"type": "string", "minLength": 1, "maxLength": 64}),
        },
        "role",
        "content",
    )
    most = nullable(within(1, COMPLETION_TOKENS_MAX))
    return {
        "messages": array(message, minItems=1),
        "model": TEXT,
        "temperature": nullable(between(0, 2)),
        "max_completion_tokens": {**most, "description": f"{rules.max_completion_tokens_default} where it is not said"},
        "max_tokens": {**most, "description": "the same under its older name"},
        **{name: nullable(OPTION_SCHEMAS.get(name, ANY)) for name in sorted(rules.extra_fields)},
    }


def _image_members(rules: ImageRules) -> dict[str, Schema]:
    return {
        "model": TEXT,
        "prompt": NAME,
        "negativePrompt": nullable(TEXT),
        "scheduler": nullable(one_of(*rules.schedulers)),
        "steps": nullable(within(1, rules.steps_max)),
        "cfgScale": nullable(between(1, rules.cfg_scale_max)),
    }


OPTION_SCHEMAS: Mapping[str, Schema] = {
    "frequency_penalty": between(-2, 2),
    "logit_bias": {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,7}$"},
        "additionalProperties": between(-100, 100),
    },
    "logprobs": FLAG,
    "metadata": {
        "type": "object",
        "maxProperties": 16,
        "propertyNames": {"maxLength": 64},
        "additionalProperties": {"type": "string", "maxLength": 512},
    },
    "n": within(1, CHOICES_MAX),
    "presence_penalty": between(-2, 2),
    "response_format": {
        "anyOf": [
            closed({"type": one_of("text", "json_object")}),
            closed({"type": one_of("json_schema"), "json_schema": ref("ResponseSchema")}),
        ]
    },
    "seed": within(-(2**63), 2**63 - 1),
    "stop": {"anyOf": [TEXT, array(TEXT, minItems=1, maxItems=4)]},
    "top_logprobs": {**within(0, 20), "description": 'needs "logprobs": true beside it'},
    "top_p": between(0, 1),
    "user": TEXT,
}
"""What each further field of a chat may be; one that only an installation's settings know may be anything."""


_PARTS: Mapping[str, Schema] = {
    "ImageURL": asked({"url": NAME, "detail": one_of(*DETAILS)}, "url"),
    "ResponseSchema": asked(
        {
            "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
            "description": nullable(TEXT),
            "strict": nullable(FLAG),
            "schema": nullable({"type": "object", "description": "without $ref, whose expansion has no bound"}),
        },
        "name",
    ),
    "Poll": asked(
        {
            "jobid": {
                "anyOf": [{"type": "string", "minLength": 1, "maxLength": JOB_CHARACTERS_MAX}, INTEGER],
            },
            "signature": {"type": "string", "minLength": 1, "maxLength": JOB_CHARACTERS_MAX},
        },
        "jobid",
        "signature",
    ),
}

_KEY_SET: Mapping[str, Schema] = {"role": one_of(*get_args(Role)), "expires_at": nullable(INSTANT)}
_SET: Mapping[str, Schema] = {
    "name": {"type": "string", "maxLength": 200, "pattern": r"^[^\x00-\x1f]*$"},
    "budgets": array(
        asked(
            {
                "window": one_of(*BUDGET_WINDOWS),
                "limit_usd": nullable(USD),
                "soft_percent": array(within(1, 100), maxItems=10),
            },
            "window",
        )
    ),
    "limits": asked({name: nullable(within(1, LIMIT_MAX)) for name in RATE_OF_LIMIT}),
    "models": nullable(array({"type": "string", "pattern": "^[ -~]{1,100}$"}, minItems=1, maxItems=200)),
    "blocked": FLAG,
}
_SCOPES: Mapping[str, Schema] = {
    "NewOrganisation": asked({**_SET, "id": ID, "timezone": TEXT, "first_weekday": TEXT}, "id"),
    "NewTeam": asked({**_SET, "id": ID, "org": nullable(ID)}, "id"),
    "NewUser": asked({**_SET, "id": ID, "org": nullable(ID), "team": ID}, "id", "team"),
    "NewKey": asked(
        {**_SET, **_KEY_SET, "id": ID, "org": nullable(ID), "team": ID, "user": nullable(ID)},
        "team",
    ),
    "ScopeChange": asked(_SET),
    "KeyChange": asked({**_SET, **_KEY_SET}),
    "KeyRotation": asked({"grace_s": within(0, GRACE_S_MAX)}),
}

_NOTED: Mapping[str, Schema] = {"note": nullable(NOTE), "org": nullable(ID)}
_WHERE: Mapping[str, Schema] = {"scope": one_of(*get_args(ScopeKind)), "id": ID}
_RATES: Mapping[str, Schema] = dict.fromkeys((*CHAT_RATES, *UNIT_RATES), nullable(PRICE_USD))
_SIZES: Mapping[str, Schema] = dict.fromkeys(CHAT_SIZES, nullable({"type": "integer", "minimum": 1}))
_MONEY: Mapping[str, Schema] = {
    "NewCredit": asked(
        {**_WHERE, **_NOTED, "amount_usd": USD, "from": nullable(ID)},
        *("scope", "id", "amount_usd"),
    ),
    "NewAdjustment": asked(
        {**_WHERE, "org": nullable(ID), "note": NOTE, "amount_usd": SIGNED_USD, "at": nullable(INSTANT)},
        *("scope", "id", "amount_usd", "note"),
    ),
    "NewAccountEntry": asked({**_NOTED, "amount_usd": nullable(USD), "balance_usd": nullable(USD)}),
    "NewReconciliation": asked({**_NOTED, "from": NAME, "to": NAME, "billed_usd": USD}, "from", "to", "billed_usd"),
    "NewPrice": asked(
        {
            **_RATES,
            **_SIZES,
            **_NOTED,
            "model": NAME,
            "kind": nullable(TEXT),
            "effective_from": NAME,
            "withdrawn": nullable(FLAG),
        },
        *("model", "effective_from"),
    ),
}
