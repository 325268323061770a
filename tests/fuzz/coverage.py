"""`./run fuzz NAME --atheris`: the coverage of the code under test leads, and what it finds is left in files.

A program of its own, for the gateway's modules are instrumented as they are imported.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from tests.fuzz.targets import TARGETS

_CORPORA = Path(".hypothesis") / "corpora"
_ANY_CUTS = b"\x40\x80\xc0"


def main(name: str, seconds: str) -> None:
    """Does not return: atheris ends the process."""
    corpus = _CORPORA / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed + _ANY_CUTS)
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", str(corpus)], TARGETS[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
