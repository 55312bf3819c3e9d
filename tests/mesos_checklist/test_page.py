"""docs/mesos.md names each point of the checklist once, with tests that exist, and no test of a point is left out."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POINTS = range(1, 41)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NUMBERED = re.compile(r"test_point_(\d\d)_")


def points() -> dict[int, str]:
    """The text of each point of the page."""
    text = (ROOT / "docs" / "mesos.md").read_text()
    parts = re.split(r"^(\d+)\. ", text.split("\n## What is not pymesos'")[0], flags=re.MULTILINE)
    numbers = [int(number) for number in parts[1::2]]
    assert numbers == list(POINTS), "each point once, in order"
    return dict(zip(numbers, parts[2::2], strict=True))


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_each_point_has_its_tests() -> None:
    for number, text in points().items():
        tests = TEST.findall(text)
        assert tests, f"point {number} names no test"
        for path, name in tests:
            assert name in functions(ROOT / path), f"point {number}: no {name} in {path}"
        own = {int(match[1]) for _, name in tests if (match := NUMBERED.match(name))}
        assert own == {number}, f"point {number} names tests of {own}"


def test_each_test_is_named() -> None:
    named = {name for text in points().values() for _, name in TEST.findall(text)}
    for path in sorted((ROOT / "tests" / "mesos_checklist").glob("test_*.py")):
        for name in functions(path):
            assert not NUMBERED.match(name) or name in named, f"{name} in {path.name} is not on the page"


def test_every_named_test_of_the_page_exists() -> None:
    for path, name in TEST.findall((ROOT / "docs" / "mesos.md").read_text()):
        assert name in functions(ROOT / path), f"no {name} in {path}"
