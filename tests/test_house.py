"""The house's own rules: who may import whom, how large things may grow, what is pinned, how `run` starts."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
GATEWAY = ROOT / "gateway"
BENCHMARKS = ROOT / "benchmarks"

FILE_LINES_MAX = 350
FUNCTION_LINES_MAX = 50

PURE_MAY_IMPORT = {"billing": set[str](), "wire": {"msgspec", "tiktoken", "tiktoken_ext"}}
CLOCK_AND_ENVIRONMENT = {
    "environ",
    "getenv",
    "now",
    "today",
    "utcnow",
    "monotonic",
    "perf_counter",
    "time_ns",
}
CLOCK_MODULES = {"asyncio", "time"}


def test_imports_point_one_way() -> None:
    """The contracts of pyproject.toml, in the test run too: a border crossed once is crossed for good."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as c; c()",
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_every_rule_that_is_set_aside_has_its_reason() -> None:
    """Beside it, where the next reader sees both: most are of ruff's security rules."""
    bare = [
        f"{shown(path)}:{number}"
        for folder in (GATEWAY, BENCHMARKS, ROOT / "tests", ROOT / "examples")
        for path in sources(folder)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"# noqa\S*( [A-Z]+[0-9]+,?)*$", line)
    ]
    assert [] == bare
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ignored = re.findall(
        r'^ +"[A-Z0-9", ]+,?$', settings.split("ignore = [", 1)[1].split("# The layout")[0], re.MULTILINE
    )
    assert [] == ignored


@pytest.mark.parametrize("layer", PURE_MAY_IMPORT)
def test_pure_layers_import_the_standard_library_alone(layer: str) -> None:
    """Beside the layers below them: rules of money and protocol must run, and be tested, anywhere."""
    allowed = set(sys.stdlib_module_names) | PURE_MAY_IMPORT[layer] | {"gateway"}
    foreign = [
        f"{shown(path)}: {name}"
        for path in sources(GATEWAY / layer)
        for name in imported_by(path)
        if name.partition(".")[0] not in allowed
    ]
    assert [] == foreign


@pytest.mark.parametrize("layer", PURE_MAY_IMPORT)
def test_pure_layers_never_await_and_read_no_clock_or_environment(layer: str) -> None:
    """Their answers depend on their arguments only, so every case can be written down as a test."""
    found = [
        f"{shown(path)}:{line}: {what}"
        for path in sources(GATEWAY / layer)
        for line, what in impurities(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert [] == found


def test_no_file_and_no_function_grows_out_of_sight() -> None:
    """What fits on a few screens is read as a whole; what does not is patched."""
    too_long = [
        f"{shown(path)}: {count} lines"
        for path in [*sources(GATEWAY), *sources(BENCHMARKS), *GATEWAY.rglob("*.lua")]
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES_MAX
    ]
    too_long += [
        f"{shown(path)}:{function.lineno} {function.name}"
        for path in [*sources(GATEWAY), *sources(BENCHMARKS)]
        for function in functions_of(path)
        if (function.end_lineno or 0) - function.lineno >= FUNCTION_LINES_MAX
    ]
    assert [] == too_long


def test_every_data_file_is_packaged() -> None:
    """A script that is missing from the wheel is found missing in production."""
    patterns = pyproject()["tool"]["setuptools"]["package-data"]["*"]
    data = [path for path in GATEWAY.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert [] == [shown(path) for path in data if not any(path.match(pattern) for pattern in patterns)]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_pins_what_pyproject_names_and_hashes_all(name: str) -> None:
    """What was tested is what is installed, wherever it is fetched from: no registry is named."""
    lock = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in lock
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", lock, re.MULTILINE))
    project = pyproject()["project"]
    wanted = [*project["dependencies"], *(project["optional-dependencies"]["dev"] if "dev" in name else [])]
    assert [] == [each for each in wanted if pinned.get(each.partition("==")[0]) != each.partition("==")[2]]
    without_hash = [block for block in re.split(r"\n(?=[a-z0-9])", lock)[1:] if "--hash=sha256:" not in block]
    assert [] == without_hash


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in small: the real `run`, an empty lock, and a gateway that says what it was called with."""
    (tmp_path / "run").write_bytes((ROOT / "run").read_bytes())
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "requirements-dev.lock").write_text("# nothing to install\n")
    package = tmp_path / "gateway" / "cli"
    package.mkdir(parents=True)
    (package / "main.py").write_text("import sys\nprint('gateway', *sys.argv[1:])\n")
    return tmp_path


def test_first_calls_at_once_install_once(checkout: Path) -> None:
    """Two terminals, or a test run beside a demo, must not install over one another."""
    calls = [start(checkout, "keys", "list") for _ in range(3)]
    outputs = [call.communicate() for call in calls]
    assert [0, 0, 0] == [call.returncode for call in calls], outputs
    assert ["gateway keys list\n"] * 3 == [out for out, _ in outputs]
    assert 1 == "".join(err for _, err in outputs).count("run: installing")


def test_a_changed_lock_is_installed(checkout: Path) -> None:
    """After a `git pull` the next call brings the packages up to date; the one after it starts at once."""
    announced = []
    for lock in ("# one\n", "# two\n", "# two\n"):
        (checkout / "requirements-dev.lock").write_text(lock)
        _, err = start(checkout, "usage").communicate()
        announced.append("run: installing" in err)
    assert [True, True, False] == announced


def test_a_python_without_ensurepip_installs_from_outside(checkout: Path, tmp_path: Path) -> None:
    """Debian's python3 makes no environment with pip unless python3-venv is there."""
    python = tmp_path / "python-without-ensurepip"
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in "-m venv .venv") echo "ensurepip is not available"; exit 1 ;; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    call = start(checkout, "usage", PYTHON=str(python))
    out, err = call.communicate()
    assert (0, "gateway usage\n") == (call.returncode, out), err


def test_a_python_that_is_too_old_is_named(checkout: Path) -> None:
    """A syntax error deep inside would not tell a stranger what to install."""
    call = start(checkout, "demo", PYTHON="/bin/false")
    out, err = call.communicate()
    assert (1, "") == (call.returncode, out)
    assert err.startswith("run: Python 3.11 or newer is needed (looked at: /bin/false)")


def start(checkout: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["./run", *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHON": sys.executable, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_by(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def impurities(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Await() | ast.AsyncFunctionDef() | ast.AsyncFor() | ast.AsyncWith():
                yield node.lineno, "awaits"
            case ast.Attribute(attr=name) if name in CLOCK_AND_ENVIRONMENT:
                yield node.lineno, name
            case ast.Import(names=names) if CLOCK_MODULES & {alias.name for alias in names}:
                yield node.lineno, "imports a clock"
            case ast.ImportFrom(module=name) if name in CLOCK_MODULES:
                yield node.lineno, "imports a clock"


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def pyproject() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)
