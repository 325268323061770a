"""What the clients of the demo heard."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Refusals:
    """How often one key was refused for one reason, and what it was told last."""

    message: str = ""
    count: int = 0


@dataclass(slots=True)
class Tally:
    """What all clients heard. Refusals are by (key, status, code)."""

    answered: int = 0
    left: int = 0
    refusals: dict[tuple[str, int, str], Refusals] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        return sum(refusals.count for refusals in self.refusals.values())

    @property
    def calls(self) -> int:
        return self.answered + self.left + self.refused

    def refuse(self, key: str, status: int, code: str, message: str) -> None:
        refusals = self.refusals.setdefault((key, status, code), Refusals())
        refusals.count += 1
        refusals.message = message
