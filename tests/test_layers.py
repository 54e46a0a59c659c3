"""Rooms import in one direction: what a file imports, anywhere in it, is read from its syntax tree."""

import ast
import functools
from pathlib import Path

import pytest

import ctspine1k
from ctspine1k.catalog import registry

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
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def below(room: str) -> set[str]:
    """All rooms that a room may import."""
    return ROOMS[room].union(*map(below, ROOMS[room]))


def imported(path: Path) -> set[tuple[str, ...]]:
    """The modules of this package that a file imports, as parts of their names."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
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


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_what_lies_below_it(path):
    room = room_of(path)
    others = {parts[0] for parts in imported(path)} - {room, "__version__"}
    assert others <= below(room), f"{path}: {sorted(others - below(room))}"


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


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_is_one_topic(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef):
            own = [
                one
                for one in node.body
                if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
            ]
            lines = own[-1].end_lineno - own[0].lineno + 1 if own else 0
            assert lines <= 60, f"{node.name}: {lines} lines of code"


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_call_can_be_read(path):
    """A public function has at most ten parameters; `load_dataset` is the drop-in of `datasets`' own."""
    for node in ast.walk(parsed(path)):
        if (
            isinstance(node, ast.FunctionDef)
            and not node.name.startswith("_")
            and node.name != "load_dataset"
        ):
            names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert len([name for name in names if name not in ("self", "cls")]) <= 10, node.name


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


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_what_is_particular_to_one_data_set_stands_in_its_module(path):
    """No other module asks which data set it is, names one, or knows its labels, folders or splits."""
    name = path.relative_to(PACKAGE).as_posix()
    if name in ABOUT_DATA_SETS:
        return
    modules = {("catalog", one) for one in registry.names()}
    assert not {parts[:2] for parts in imported(path)} & modules
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Name):
            assert node.id not in ("MAX_LABEL", "SOURCES", "SPLITS", "SPECIAL_CASES"), node.id
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, str)):
            assert node.value not in ("COLONOG", "MSD-T10", "trainset", "raw_data"), node.value
            assert node.value != 25, f"{name}: {node.lineno}"
            # The name of the first data set is also that of the package.
            is_name = node.value in registry.names() and node.value != registry.DEFAULT
            assert not is_name or name in NAMED_ALIKE, f"{name}: {node.lineno}"
        if isinstance(node, ast.Compare) and name not in NAMED_ALIKE:
            compared = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}
            assert not compared & set(registry.names()), f"{name}: {node.lineno}"


TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.relative_to(TESTS).as_posix()
)
def test_no_test_module_imports_another(path):
    for node in ast.walk(parsed(path)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name.rpartition(".")[2].startswith("test_")]


def test_tests_stand_in_the_rooms_of_what_they_test():
    rooms = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= {*ROOMS, "support"}
