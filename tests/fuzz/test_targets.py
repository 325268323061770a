"""A little of each fuzz target with every change; `./run fuzz NAME --seconds N` goes on for longer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import drawn
from tests.fuzz.inputs import inputs_of
from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("cuts", [b"\0\0\0", b"\x40\x80\xc0", b"\x01\x7f\xff"])
def test_every_seed_keeps_the_laws(name: str, cuts: bytes) -> None:
    """What fails here fails before anything is drawn."""
    for seed in TARGETS[name].seeds:
        TARGETS[name].check(seed + cuts)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_drawn_keeps_the_laws(name: str) -> None:
    """Hypothesis remembers what failed and shows the smallest."""

    @settings(max_examples=2 * settings().max_examples, deadline=None)
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        TARGETS[name].check(data.draw(inputs_of(TARGETS[name])))

    draw()


def test_a_broken_law_is_raised_with_its_input() -> None:
    """A run by hand that finds something must not end as one that found nothing."""

    def check(data: bytes) -> None:
        assert b"{" not in data

    with pytest.raises(AssertionError):
        drawn(Target(check, seeds=[b"seed"], alphabet=[b"{", b"}"]), seconds=60)
    assert drawn(TARGETS["key"], seconds=0.01) >= 1
