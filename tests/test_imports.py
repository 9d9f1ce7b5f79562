"""What imports what: no circle of files, one direction between packages, and nothing that is not needed."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import vaectl
from tests.conftest import ROOT

WITHOUT_PYAV = (
    "vaectl.engine",
    "vaectl.models",
    "vaectl.tensors",
    "vaectl.tiling.executor",
    "vaectl.tiling.stream",
    "vaectl.training.trainer",
)
WITHOUT_TORCH = (
    "vaectl.cli.app",
    "vaectl.distributed",
    "vaectl.errors",
    "vaectl.evaluation.compare",
    "vaectl.evaluation.protocols",
    "vaectl.geometry",
    "vaectl.io.journal",
    "vaectl.io.json_values",
    "vaectl.io.lock",
    "vaectl.io.output_paths",
    "vaectl.model_names",
    "vaectl.options.train",
    "vaectl.prefetch",
    "vaectl.progress",
    "vaectl.rng",
    "vaectl.training.resume",
    "vaectl.urls",
    "vaectl.versions",
)

BASE = {
    "arrays",
    "errors",
    "geometry",
    "lazy",
    "memory",
    "model_names",
    "numbers",
    "prefetch",
    "progress",
    "rng",
    "shortage",
    "transfer",
    "urls",
    "versions",
}
JOBS = {"evaluation", "inventory", "reconstruction", "tensors", "training"}
LAYERS: tuple[set[str], ...] = (
    BASE,
    {"", "io", "options"},
    {"distributed", "models", "video"},
    {"allocator", "data", "metrics", "tiling"},
    {"engine"},
    JOBS,
    {"cli"},
    {"__main__"},
)
"""Parts of vaectl from the bottom up. A part imports those of the layers below; the base and jobs each other too.

The empty name is `vaectl/__init__.py`.
"""
USERS_OF_OPTIONS = {"cli", "distributed", *JOBS}
EXCEPTIONS = {
    ("options.eval", "metrics"),  # the names of the metrics
    ("options.protocol", "metrics"),
}


def test_networks_tiling_and_training_steps_need_no_pyav():
    code = f"import sys; sys.modules['av'] = None\nfor name in {WITHOUT_PYAV}: __import__(name)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_options_and_the_command_line_need_no_torch():
    code = f"import sys; sys.modules['torch'] = None\nfor name in {WITHOUT_TORCH}: __import__(name)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_of_the_package_is_there_and_imports_no_torch_before_its_first_use():
    code = "import sys, vaectl; assert not {'torch', 'av', 'numpy'} & sys.modules.keys(); print(*dir(vaectl))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert {"evaluate", "load_model", "read_video", "save_model", "write_video"} < set(done.stdout.split())
    for name in done.stdout.split():
        assert getattr(vaectl, name)


def test_a_name_that_the_video_package_lacks():
    import vaectl.video

    assert vaectl.video.read_video.__module__ == "vaectl.video.read"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vaectl.video.nothing  # noqa: B018


def test_there_is_no_circle_of_files():
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail("these files import each other: " + " <- ".join(error.args[1]))


def test_a_circle_would_be_found(tmp_path):
    package = tmp_path / "vaectl"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text("def f():\n    from vaectl import b\n")
    (package / "b.py").write_text("from vaectl.c import d\n")
    (package / "c.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vaectl.a import f\nd = 1\n"
    )
    TopologicalSorter(imports(tmp_path)).prepare()
    (package / "c.py").write_text("import vaectl.a\nd = 1\n")
    with pytest.raises(CycleError):
        TopologicalSorter(imports(tmp_path)).prepare()


def test_imports_point_one_way():
    layer_of = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    wrong = []
    for file, imported in imports().items():
        for other in imported:
            a, b = part_of(file), part_of(other)
            if a == b or not b or (file.removeprefix("vaectl."), b) in EXCEPTIONS:
                continue
            assert {a, b} <= set(layer_of), f"say in LAYERS where {a} and {b} belong"
            same = {a, b} <= BASE or {a, b} <= JOBS
            if not (same or layer_of[b] < layer_of[a]) or (b == "options" and a not in USERS_OF_OPTIONS):
                wrong.append(f"{file} imports {other}")
    assert not wrong


def imports(source: Path = ROOT / "src") -> dict[str, set[str]]:
    """For each module below `source`, the others that it imports, within functions too, but not for types alone."""
    files = {module_of(file.relative_to(source)): file for file in (source / "vaectl").rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for module, file in files.items():
        found: set[str] = set()
        for node in statements(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module, f"{file}: imports are absolute"
                assert node.level == 0, f"{file}: imports are absolute"
                for name in node.names:
                    full = f"{node.module}.{name.name}"
                    found.add(full if full in files else node.module)
        graph[module] = (found & set(files)) - {module}
    return graph


def module_of(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    """The package or file directly below vaectl; nothing for vaectl itself."""
    return module.partition(".")[2].partition(".")[0]


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, but for what stands under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from statements(child)


@pytest.mark.parametrize("name", ["vaectl", "vaectl.models", "vaectl.options", "vaectl.video"])
def test_names_imported_on_first_use_are_those_that_type_checkers_and_editors_see(name):
    package = importlib.import_module(name)
    (block,) = (node for node in ast.parse(Path(package.__file__).read_text()).body if isinstance(node, ast.If))
    declared = {each.name: node.module for node in block.body for each in node.names}
    assert package._HOMES.keys() == declared.keys()
    for each, module in declared.items():
        assert getattr(package, each) is getattr(importlib.import_module(module), each)
    if name != "vaectl.options":
        assert set(dir(package)) == set(package.__all__) >= declared.keys()
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing
