"""Rooms import in one direction: what a file imports, anywhere in it, is read from its syntax tree."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import ctspine1k
from ctspine1k.catalog import registry

Node = TypeVar("Node", bound=ast.AST)

PACKAGE = Path(ctspine1k.__file__).parent

#: What each room may import; what these may import, too, it may as well. Nothing else, and never a sibling.
ROOMS = {
    "errors": {"_messages"},
    "_messages": set(),
    "running": {"errors"},
    "catalog": {"errors"},
    "volumes": {"running", "catalog"},
    "files": {"running", "catalog"},
    "scans": {"catalog", "files"},
    "storage": {"volumes", "running"},
    "rows": {"storage", "volumes", "files", "scans"},
    "checks": {"volumes", "files", "scans"},
    "pictures": {"volumes", "files"},
    "exports": {"rows", "files", "scans"},
    "training": {"storage", "catalog"},
    "evaluation": {"volumes", "files"},
    "collection": {"rows", "checks", "pictures", "exports", "evaluation"},
    "demo": {"collection"},
    "cli": {"collection", "demo"},
    "__main__": {"cli"},
}


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of the syntax tree of a file."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def of(path: Path, kind: type[Node]) -> Iterator[Node]:
    """Those of one kind."""
    return (node for node in nodes(path) if isinstance(node, kind))


def below(room: str) -> set[str]:
    """All rooms that a room may import."""
    return ROOMS[room].union(*map(below, ROOMS[room]))


@functools.cache
def imported(path: Path) -> set[tuple[str, ...]]:
    """The modules of this package that a file imports, as parts of their names."""
    found = {tuple(alias.name.split(".")) for node in of(path, ast.Import) for alias in node.names}
    for node in of(path, ast.ImportFrom):
        assert node.level == 0, f"{path}: relative imports are patched by datasets 3"
        module = tuple(node.module.split("."))
        found |= {(*module, alias.name) for alias in node.names} if len(module) == 1 else {module}
    return {parts[1:] for parts in found if parts[0] == "ctspine1k" and len(parts) > 1}


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_the_top_folder_holds_rooms_and_the_front_door():
    top = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert top == {*ROOMS, "__init__", "py.typed"}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_a_room_imports_only_what_lies_below_it():
    wrong = {}
    for path in files():
        room = room_of(path)
        wrong[name_of(path)] = {parts[0] for parts in imported(path)} - {room, "__version__"} - below(room)
    assert not {name: others for name, others in wrong.items() if others}


def test_modules_import_in_one_direction_within_a_room():
    graph = {
        path.relative_to(PACKAGE).with_suffix("").parts: {
            parts for parts in imported(path) if parts[0] == room_of(path) and len(parts) > 1
        }
        for path in files()
    }
    done: set[tuple[str, ...]] = set()

    def visit(module: tuple[str, ...], way: tuple[tuple[str, ...], ...]) -> None:
        assert module not in way, f"modules that import each other: {way}"
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_one_module_alone_reaches_into_datasets():
    reaching = set()
    for path in (*files(), PACKAGE / "__init__.py"):
        modules = {node.module or "" for node in of(path, ast.ImportFrom)}
        reaching |= {(name_of(path), module) for module in modules if module.startswith("datasets.")}
    assert reaching <= {
        ("rows/_datasets.py", "datasets.info"),
        ("rows/_datasets.py", "datasets.iterable_dataset"),
        ("rows/_datasets.py", "datasets.splits"),
        ("rows/_datasets.py", "datasets.utils.info_utils"),
        ("storage/feature.py", "datasets.features.features"),
    }


def lines_of(function: ast.FunctionDef) -> int:
    """How many lines of code a function has, without its docstring."""
    own = [
        one
        for one in function.body
        if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
    ]
    return own[-1].end_lineno - own[0].lineno + 1 if own else 0


def test_a_module_is_one_topic():
    long = {}
    for path in files():
        long[name_of(path)] = len(path.read_text(encoding="utf-8").splitlines())
    assert not {name: lines for name, lines in long.items() if lines > 400}


def test_a_function_fits_a_screen():
    long = {}
    for path in files():
        long |= {f"{name_of(path)}: {node.name}": lines_of(node) for node in of(path, ast.FunctionDef)}
    assert not {name: lines for name, lines in long.items() if lines > 60}


def test_a_call_can_be_read():
    """A public function has at most ten parameters; `load_dataset` is the drop-in of `datasets`' own."""
    many = {}
    for path in files():
        for node in of(path, ast.FunctionDef):
            names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if not node.name.startswith("_") and node.name != "load_dataset":
                many[f"{name_of(path)}: {node.name}"] = len([n for n in names if n not in ("self", "cls")])
    assert not {name: count for name, count in many.items() if count > 10}


#: Modules of data sets, those that list or make some, and numbers of vertebrae in several.
ABOUT_DATA_SETS = {
    "catalog/ctspine1k.py",
    "catalog/verse.py",
    "catalog/msr.py",
    "catalog/registry.py",
    "demo/phantom.py",
    "demo/small.py",
    "volumes/vertebrae.py",
}

#: Modules where the name of a data set is that of something else: a label scheme, a format of points, an extra, a
#: protocol by which predictions are judged.
NAMED_ALIKE = {
    "catalog/vocabulary.py",
    "catalog/dataset.py",
    "evaluation/presets.py",
    "volumes/point_formats.py",
    "volumes/metaimage.py",
}


def particulars(path: Path) -> Iterator[str]:
    """What in a file is particular to one data set."""
    name, data_sets = name_of(path), set(registry.names())
    yield from (
        str(parts) for parts in imported(path) if parts[:2] in {("catalog", one) for one in data_sets}
    )
    for node in of(path, ast.Name):
        if node.id in ("MAX_LABEL", "SOURCES", "SPLITS", "SPECIAL_CASES"):
            yield f"{node.lineno}: {node.id}"
    for node in of(path, ast.Constant):
        # The name of the first data set is also that of the package.
        is_name = isinstance(node.value, str) and node.value in data_sets - {registry.DEFAULT}
        if (
            node.value in ("COLONOG", "MSD-T10", "trainset", "raw_data")
            or node.value == 25
            or (is_name and name not in NAMED_ALIKE)
        ):
            yield f"{node.lineno}: {node.value!r}"
    for node in of(path, ast.Compare) if name not in NAMED_ALIKE else ():
        compared = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}
        if compared & data_sets:
            yield f"{node.lineno}: compared with {compared & data_sets}"


def test_what_is_particular_to_one_data_set_stands_in_its_module():
    """No other module asks which data set it is, names one, or knows its labels, folders or splits."""
    found = {name_of(path): list(particulars(path)) for path in files()}
    assert not {name: places for name, places in found.items() if places and name not in ABOUT_DATA_SETS}


TESTS = Path(__file__).parent


def test_no_test_module_imports_another():
    # Parsing them all takes a second.
    importing = re.compile(r"^\s*(?:from|import)\s.*\btest_.*", re.MULTILINE)
    found = {path: importing.findall(path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py")}
    assert not {path: lines for path, lines in found.items() if lines}


def test_tests_stand_in_the_rooms_of_what_they_test():
    rooms = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= {*ROOMS, "support"}
