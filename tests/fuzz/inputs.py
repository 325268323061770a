"""Inputs for a target: its alphabet in any order, and its seeds cut, doubled and spoilt."""

from hypothesis import strategies as st

from tests.fuzz.targets import Target


def inputs_of(target: Target) -> st.SearchStrategy[bytes]:
    """Bytes near what the target's code looks at."""
    piece = st.sampled_from(target.alphabet) | st.binary(max_size=4)
    made = st.lists(piece, max_size=40).map(b"".join)
    return st.builds(
        bytes.__add__, made | spoilt(st.sampled_from(target.seeds), piece), st.binary(min_size=3, max_size=3)
    )


@st.composite
def spoilt(draw: st.DrawFn, seeds: st.SearchStrategy[bytes], piece: st.SearchStrategy[bytes]) -> bytes:
    """A seed, up to four times with something put in place of a part of it."""
    data = draw(seeds)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 64)))
        data = data[:start] + draw(piece | st.just(data[start:end] * 2)) + data[end:]
    return data
