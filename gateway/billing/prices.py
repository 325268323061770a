"""The price list: what each model costs, and from usage to a charge.

A model without a price does not exist: `PriceList.of` raises, nothing is ever free by omission.
Source: MiniToolAI's price table (seed 000_…, "Giá API"); ADR 0001. How prices are written: `price_rows`; which list is
in force when: `price_schedule`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from gateway.billing.errors import ModelNotFound
from gateway.billing.money import NanoUSD, nano_from_pico
from gateway.billing.usage import Usage

IMAGE_RULES = ("image_tile_tokens", "image_patch_percent")
"""The fields of a price that tighten the bound of an image by its size; a price has one of them, or none."""


class PriceListError(ValueError):
    """A price is wrong; the text says which model, which field and what would be right. `field` is the field's name."""

    def __init__(self, text: str, field: str = "") -> None:
        super().__init__(text)
        self.field = field


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """Price and size of one model.

    Chat models are priced by token (`input_pico_usd`, `output_pico_usd` a token) and bounded by
    `context_tokens_max` and `output_tokens_max`; `image_tokens_*` bound one image part by its detail. Where
    its size is known, one of two rules may bound it lower: `image_tokens_low` and `image_tile_tokens` a tile, or
    `image_patch_percent` tokens for a hundred patches; 0: the model has no such rule.
    Everything else is priced by `unit_pico_usd` an image, call or character.
    """

    model: str
    kind: str
    input_pico_usd: int = 0
    cached_pico_usd: int = 0
    output_pico_usd: int = 0
    unit_pico_usd: int = 0
    context_tokens_max: int = 0
    output_tokens_max: int = 0
    image_tokens_low: int = 0
    image_tokens_high: int = 0
    image_tile_tokens: int = 0
    image_patch_percent: int = 0

    def cost_of(self, usage: Usage) -> NanoUSD:
        """Price one call: quantities × pico-USD, summed, rounded up to nano-USD once.

        Cached tokens are part of `usage.prompt_tokens`, never added to it; they cost what other
        input tokens cost unless the list says otherwise.
        """
        fresh_tokens = usage.prompt_tokens - usage.cached_tokens
        return nano_from_pico(
            fresh_tokens * self.input_pico_usd
            + usage.cached_tokens * self.cached_pico_usd
            + usage.completion_tokens * self.output_pico_usd
            + usage.units * self.unit_pico_usd
        )

    def most_of(self, usage: Usage) -> NanoUSD:
        """The most a call with this bound can cost, whatever part of its prompt turns out cached."""
        dearest = max(self.input_pico_usd, self.cached_pico_usd)
        return nano_from_pico(
            usage.prompt_tokens * dearest
            + usage.completion_tokens * self.output_pico_usd
            + usage.units * self.unit_pico_usd
        )

    def fields(self) -> dict[str, str | int]:
        """What is kept of it: `ModelPrice(**fields)` is this price again.

        A rule that it does not have is left out: so a list without rules has the version that it had before there
        were any.
        """
        return {name: value for name, value in asdict(self).items() if value or name not in IMAGE_RULES}


class PriceList:
    """All models that have a price. `version` names exactly this list (a digest of its content)."""

    def __init__(self, prices: Iterable[ModelPrice]) -> None:
        self._by_model: dict[str, ModelPrice] = {}
        for price in sorted(prices, key=lambda price: price.model):
            if price.model in self._by_model:
                raise PriceListError(f"model {price.model} has two prices; keep one")
            self._by_model[price.model] = price
        rows = [price.fields() for price in self._by_model.values()]
        canonical = json.dumps(rows, sort_keys=True, separators=(",", ":"))
        self.version = hashlib.sha256(canonical.encode()).hexdigest()[:12]
        self.canonical = canonical

    @classmethod
    def of_canonical(cls, canonical: str) -> "PriceList":
        """The list that `canonical` was written from."""
        return cls(ModelPrice(**row) for row in json.loads(canonical))

    def of(self, model: str, kind: str) -> ModelPrice:
        """The price of a model for one kind of call.

        Raises ModelNotFound: no price, or a price of another kind (an image model sent to chat).
        """
        price = self._by_model.get(model)
        if price is None or price.kind != kind:
            # Which there are depends on the key that asks: no list here would be true for all of them.
            raise ModelNotFound(
                f"There is no {kind} model {model[:80]!r} with a price; GET /v1/models lists those that this key may "
                "use.",
                param="model",
            )
        return price

    def find(self, model: str) -> ModelPrice | None:
        """The price of a model, whatever its kind."""
        return self._by_model.get(model)

    def models(self, kind: str | None = None) -> tuple[str, ...]:
        """Model names in the order of the alphabet, of one kind or of all."""
        return tuple(p.model for p in self._by_model.values() if kind is None or p.kind == kind)
