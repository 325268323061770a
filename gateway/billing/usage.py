"""What a call used, in the units it is priced by."""

from typing import NamedTuple


class Usage(NamedTuple):
    """Quantities of one call, or the most it can use.

    `cached_tokens` are part of `prompt_tokens`, never added to them. `units` are images, calls or
    characters, whatever the model's price counts.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    units: int = 0
