"""The package as a whole: imports point one way, importing it is cheap, its name is shared."""

import ast
import graphlib
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import compression

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "compression"

# A module may import those before it; a family (`scan_*`, `kmeans_*`) stands at one place.
ORDER = (
    "inputs files presets hardware recorded_machine data download gridmask augmentation resnet9 "
    "checkpoint model inference ensemble unfolding masks constraints recipes optimizer resume "
    "training_ training latency evaluation recalibration runs study_ augmentation_study scan_ "
    "sensitivity scan_records pruning kmeans_ kmeans entropy_codebook quantization fitted_levels "
    "compensation centroids code_training allocation_ allocation rival_allocations sizes packing_ "
    "packing worth entropy_quantization entropy_rounding entropy_training stored budget_fit "
    "front_ fronts report shrink_ shrink reproduction_ reproduction cli __main__ ui"
).split()
STANDARD = ["gzip", "bz2", "lzma", "zipfile", "tarfile", "zlib", "shutil"]


def place_of(module):
    """Where `compression.<module>` stands in the order: 3 for `data`, by its family or folder."""
    first = module.split(".")[0]
    places = {name: place for place, name in enumerate(ORDER)}
    return places[first if first in places else f"{first.split('_')[0]}_"]


def imported_by(path):
    """Names of the project's modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("compression.")}
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module == "compression":
                found |= {f"compression.{alias.name}" for alias in node.names}
            elif node.module.startswith("compression."):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                modules = {name for name in names if is_module(name)}
                found |= modules or {node.module}
    return {name.removeprefix("compression.") for name in found if is_module(name)}


def is_module(name):
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def modules():
    """Every module of the package by its dotted name, without the package's own file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if name != "__init__":
            yield name.removesuffix(".__init__"), path


GRAPH = {name: imported_by(path) for name, path in modules()}


@pytest.mark.parametrize("module", GRAPH)
def test_imports_point_one_way(module):
    """A module outside a family or folder imports earlier ones only; ui and cli not each other."""
    for other in GRAPH[module]:
        same = place_of(other) == place_of(module)
        assert place_of(other) < place_of(module) or (same and other != module), other
        assert not (module.startswith("ui") and other.startswith("cli")), other


def test_no_imports_go_round_in_a_circle():
    order = list(graphlib.TopologicalSorter(GRAPH).static_order())
    assert len(order) == len(GRAPH)
    assert order.index("inputs") < order.index("training") < order.index("__main__")


def test_the_test_of_the_order_sees_imports():
    assert {"data", "inputs"} <= GRAPH["download"]
    assert "torch" not in GRAPH["training"]
    assert {"ui.explorer", "ui.html"} <= GRAPH["ui.prune_tab"]


def test_gradio_is_for_the_page_alone():
    users = {name for name, path in modules() if imports_of(path) & {"gradio"}}
    assert users
    assert all(name.startswith("ui.") for name in users)
    assert "ui.plots" not in users


def imports_of(path):
    """First parts of all absolute imports of a file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def at_import(path):
    """First parts of what a file imports at its top level, so on every start."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("slow", ["sklearn", "thop", "torchvision"])
def test_slow_packages_are_imported_where_they_are_used(slow):
    assert not {name for name, path in modules() if slow in at_import(path)}


def test_no_module_is_longer_than_300_lines():
    long = {name: len(path.read_text().splitlines()) for name, path in modules()}
    assert {name for name, lines in long.items() if lines > 300} == set()


def test_every_module_says_what_it_does():
    assert all(ast.get_docstring(ast.parse(path.read_text())) for _, path in modules())


def test_every_public_name_is_there():
    for name in compression.__all__:
        assert getattr(compression, name) is not None
    assert set(compression.__all__) <= set(dir(compression))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'compression' has no attribute 'nothing'"):
        _ = compression.nothing


def python(code, *paths, flags=()):
    """Run `code` in a fresh Python with these folders first on its path; gives what it prints."""
    command = [sys.executable, *flags, "-c", code]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_is_cheap():
    code = (
        "import sys, compression, compression.inputs, compression.presets\n"
        "print(*{'torch', 'numpy', 'gradio', 'sklearn', 'PIL'} & set(sys.modules))"
    )
    assert python(code, ROOT) == ""


@pytest.fixture
def other_package(tmp_path):
    """A package of the same name further down the path, as the standard one is from 3.14 on."""
    folder = tmp_path / "compression"
    (folder / "_common").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('ours is to be found first')")
    (folder / "_common" / "__init__.py").write_text("")
    (folder / "_common" / "_streams.py").write_text("BUFFER_SIZE = 8192")
    (folder / "zstd.py").write_text("from compression._common._streams import BUFFER_SIZE")
    return tmp_path


def test_another_package_of_the_same_name_stays_reachable(other_package):
    code = (
        "import compression.zstd, compression._common._streams, compression.inputs\n"
        "from compression.presets import PRESETS\n"
        "print(compression.zstd.BUFFER_SIZE, compression.__file__)"
    )
    assert python(code, ROOT, other_package).split() == ["8192", str(PACKAGE / "__init__.py")]


def test_without_the_extension_of_the_path_it_would_not(other_package, tmp_path):
    """The test above can fail: the same package without its first statement loses the other."""
    plain = tmp_path / "plain" / "compression"
    plain.mkdir(parents=True)
    source = (PACKAGE / "__init__.py").read_text()
    assert source.count("__path__ = pkgutil.extend_path") == 1
    changed = source.replace("__path__ = pkgutil.extend_path(__path__, __name__)", "")
    (plain / "__init__.py").write_text(changed)
    code = (
        "try:\n    import compression.zstd\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    assert "compression.zstd" in python(code, plain.parent, other_package)


def test_the_standard_librarys_compression_works_beside_it():
    """On Python 3.14 gzip, bz2, lzma and zipfile import from the standard package of this name."""
    code = (
        f"import {', '.join(STANDARD)}\n"
        "import compression, compression.inputs\n"
        "print(gzip.decompress(gzip.compress(b'a')) + bz2.decompress(bz2.compress(b'b'))\n"
        "      + lzma.decompress(lzma.compress(b'c')), compression.__file__)\n"
        "import sys\n"
        "if sys.version_info >= (3, 14):\n"
        "    import compression.zlib, compression.gzip, compression.zstd"
    )
    assert python(code, ROOT) == f"b'abc' {PACKAGE / '__init__.py'}"


def test_no_module_hides_one_of_the_standard_package():
    """Those that Python 3.14 has in its own `compression`."""
    standard = {"_common", "bz2", "gzip", "lzma", "zlib", "zstd"}
    assert not standard & {name.split(".")[0] for name in GRAPH}
    if sys.version_info >= (3, 14):
        theirs = Path(importlib.import_module("gzip").__file__).parent / "compression"
        assert {path.stem for path in theirs.iterdir()} <= standard | {"__init__", "__pycache__"}
