"""The layer table and the other rules on imports, enforced.

Every module is read with `ast`, imports inside functions and under TYPE_CHECKING included. A
module counts as the first part of its path below `ovsam_cli/`: `model/ovsam.py` is `model`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import ovsam_cli

PACKAGE = Path(ovsam_cli.__file__).parent

# A module imports only from earlier rows. 1a and 1b are what the modules of layer 1 share, which
# may not import each other.
LAYERS: list[tuple[str, set[str]]] = [
    ("0", {"errors", "structures"}),
    ("0a", {"compiled_resize"}),
    ("1a", {"remote", "raster", "outlines", "run_lengths"}),
    ("1b", {"image_paths", "prompt_files", "decoding", "mask_edges"}),
    ("1", {"images", "prompts", "vocabulary", "masks"}),
    ("2", {"model"}),
    ("3", {"outputs"}),
    ("4", {"labelling"}),
    ("5", {"evaluation", "training", "benchmarking", "demo", "doctor", "plugins"}),
    ("6", {"cli"}),
    ("7", {"__init__", "__main__"}),
]
SIDEWAYS = {("training", "evaluation"), ("benchmarking", "evaluation")}
ROOT_NAMES = {"__version__"}  # the version stands in the package's root, where hatch reads it

# Third parties beyond numpy, by path: at module level, and inside functions only. First match.
THIRD_PARTIES: list[tuple[str, set[str], set[str]]] = [
    ("structures", set(), {"supervision"}),
    ("images", {"PIL"}, set()),
    ("compiled_resize", {"numba"}, set()),
    ("decoding", {"PIL"}, {"simplejpeg"}),
    ("masks", {"pycocotools"}, set()),
    ("mask_edges/compiled", {"numba"}, set()),
    ("remote", set(), {"fsspec", "aiohttp"}),
    ("vocabulary", {"safetensors"}, set()),
    ("model/hub", set(), {"huggingface_hub"}),
    ("model/checkpoint", {"torch", "safetensors"}, {"huggingface_hub", "open_clip", "timm"}),
    ("model/clip2sam", {"torch"}, {"torchvision"}),
    ("model/clip_encoder", {"torch"}, {"torchvision", "open_clip", "timm"}),
    ("model/text_encoder", {"torch"}, {"open_clip"}),
    ("model/minilm", {"torch", "safetensors"}, {"tokenizers", "transformers"}),
    ("model", {"torch", "safetensors"}, set()),
    ("outputs/parquet", set(), {"pyarrow"}),
    ("outputs/parquet_rows", set(), {"pyarrow"}),
    ("outputs/parquet_reading", set(), {"pyarrow"}),
    ("outputs", {"PIL"}, set()),
    ("labelling/distributed", set(), set()),
    ("labelling/distributed_ray", set(), {"ray", "torch"}),
    ("labelling/postprocess", {"torch"}, {"torchvision"}),
    ("labelling", {"torch", "safetensors"}, set()),
    ("evaluation/average_precision", {"faster_coco_eval"}, set()),
    ("evaluation/crop_embeddings", {"torch", "PIL"}, set()),
    ("evaluation", {"torch"}, set()),
    ("training/scenes", {"PIL", "bpy", "mathutils"}, {"PIL", "OpenEXR", "resvg_py"}),
    ("training", {"torch", "safetensors", "PIL"}, set()),
    ("benchmarking", {"torch"}, {"PIL", "cv2", "segment_anything", "torchvision"}),
    ("demo/uploads", {"PIL"}, set()),
    ("demo", {"torch"}, {"fastapi", "starlette", "uvicorn"}),
    ("doctor", set(), {"torch"}),
    ("plugins/cvat", {"PIL", "cvat_sdk"}, set()),
    ("plugins/fiftyone", {"fiftyone"}, set()),
    ("cli", {"typer", "rich", "tqdm"}, set()),
    ("", set(), set()),
]
TORCH_FREE = {
    *("errors", "structures", "raster", "outlines", "run_lengths", "prompt_files", "mask_edges"),
    *("remote", "image_paths", "doctor", "labelling/machine"),
    *("compiled_resize", "decoding", "images", "prompts", "vocabulary", "masks", "outputs", "cli"),
    *("labelling/options", "labelling/plan", "labelling/planner"),
    *("labelling/prompt_chunks", "labelling/shards", "labelling/run_folder"),
    *("labelling/journal", "labelling/journal_rows", "labelling/journal_index"),
    *("labelling/journal_part", "labelling/run_description", "labelling/run_reading"),
    *("labelling/run_facts", "labelling/engine"),
    *("labelling/worker_link", "labelling/worker_pool", "labelling/distributed"),
    *("evaluation/datasets", "evaluation/metrics", "evaluation/coco_entries"),
    *("evaluation/average_precision", "evaluation/detections", "evaluation/detection_files"),
    *("evaluation/splits", "evaluation/clicks", "evaluation/instance_store", "evaluation/tally"),
    *("evaluation/dataset_places", "evaluation/metrics_file", "evaluation/figure_tables"),
    *("evaluation/streamed_means", "evaluation/boundaries", "evaluation/figure_charts"),
    *("evaluation/temperature", "evaluation/row_journal", "evaluation/instance_rows"),
    *("evaluation/logit_rows", "labelling/score_calibration"),
    *("evaluation/published", "evaluation/page_parts", "evaluation/precision_charts"),
    *("evaluation/precision_page", "evaluation/boxes_tables"),
}
# Typer draws help and errors by rich and converts values by pydantic; each costs more than itself.
SLOW_TO_IMPORT = ("torch", "numpy", "PIL", "pycocotools", "pydantic", "rich")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, and where the statement stands."""

    name: str
    in_function: bool
    type_checking: bool


@cache
def read_modules(package: Path) -> tuple[tuple[str, ast.Module], ...]:
    """Path below the package without suffix (`model/ovsam`, `model/__init__`), and its tree."""
    return tuple(
        (path.relative_to(package).with_suffix("").as_posix(), ast.parse(path.read_bytes()))
        for path in sorted(package.rglob("*.py"))
    )


def iter_imports(
    node: ast.AST, *, function: bool = False, typing: bool = False
) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, function, typing)
        elif isinstance(child, ast.ImportFrom):
            module = "." * child.level + (child.module or "")
            if module == "ovsam_cli":
                for alias in child.names:
                    yield Import(f"{module}.{alias.name}", function, typing)
            else:
                yield Import(module, function, typing)
        guards_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        yield from iter_imports(
            child,
            function=function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef),
            typing=typing or guards_types,
        )


def find_layer(part: str) -> int | None:
    return next((row for row, (_, parts) in enumerate(LAYERS) if part in parts), None)


def check_layers(package: Path) -> list[str]:
    """One sentence for every import against the table."""
    faults = []
    for module, tree in read_modules(package):
        part = module.split("/")[0]
        layer = find_layer(part)
        if layer is None:
            faults.append(f"{module}: {part!r} is not in the layer table")
            continue
        for item in iter_imports(tree):
            if item.name.startswith("."):
                faults.append(f"{module} has the relative import {item.name!r}")
            if item.name.split(".")[0] != "ovsam_cli":
                continue
            other = item.name.partition(".")[2].split(".")[0]
            if other in ROOT_NAMES or (other == part and part != module):
                continue
            above = find_layer(other)
            if above is None:
                faults.append(f"{module} imports {item.name!r}, which is no module of the table")
            elif above >= layer and (part, other) not in SIDEWAYS:
                faults.append(f"{module} (layer {LAYERS[layer][0]}) imports {item.name}")
    return faults


def test_imports_go_one_way() -> None:
    assert check_layers(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "statement", "fault"),
    [
        ("masks.py", "from ovsam_cli.labelling.grid import x", "masks (layer 1) imports"),
        ("masks.py", "def f():\n    import ovsam_cli.images", "masks (layer 1) imports"),
        ("model/ovsam.py", "from ovsam_cli.outputs.coco import x", "model/ovsam (layer 2) imports"),
        ("evaluation/a.py", "from ovsam_cli.training.data import x", "evaluation/a (layer 5)"),
        ("errors.py", "from ovsam_cli.structures import x", "errors (layer 0) imports"),
        ("model/ovsam.py", "from .layers import x", "relative import"),
        ("model/ovsam.py", "from ovsam_cli import load_model", "no module of the table"),
        ("model/ovsam.py", "import ovsam_cli", "no module of the table"),
        ("utils.py", "", "'utils' is not in the layer table"),
        ("model/a.py", "if TYPE_CHECKING:\n    from ovsam_cli.cli.main import x", "model/a (layer"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, module: str, statement: str, fault: str) -> None:
    path = tmp_path / module
    path.parent.mkdir(exist_ok=True)
    path.write_text(statement)
    (found,) = check_layers(tmp_path)
    assert fault in found


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("training/loop.py", "from ovsam_cli.evaluation.protocol import x"),
        ("model/ovsam.py", "from ovsam_cli.model.layers import x"),
        ("outputs/coco.py", "from ovsam_cli import masks\nfrom ovsam_cli.structures import x"),
        ("cli/main.py", "from ovsam_cli import __version__"),
    ],
)
def test_a_right_import_passes(tmp_path: Path, module: str, statement: str) -> None:
    path = tmp_path / module
    path.parent.mkdir()
    path.write_text(statement)
    assert check_layers(tmp_path) == []


def test_only_training_knows_the_teacher() -> None:
    users = {
        module
        for module, tree in read_modules(PACKAGE)
        for item in iter_imports(tree)
        if item.name == "ovsam_cli.model.sam_encoder"
    }
    assert {user for user in users if not user.startswith("training/")} == set()


def test_exports_do_not_know_each_other() -> None:
    for module, tree in read_modules(PACKAGE):
        if module.startswith("outputs/exports/"):
            others = {item.name for item in iter_imports(tree)}
            assert not {name for name in others if name.startswith("ovsam_cli.outputs.exports.")}


def test_third_parties_stay_in_their_place() -> None:
    faults = []
    for module, tree in read_modules(PACKAGE):
        at_top, inside = next(
            (top, inner)
            for prefix, top, inner in THIRD_PARTIES
            if not prefix or module == prefix or module.startswith(f"{prefix}/")
        )
        for item in iter_imports(tree):
            name = item.name.split(".")[0]
            if name in sys.stdlib_module_names or name in ("ovsam_cli", "numpy", ""):
                continue
            allowed = at_top | inside if item.in_function or item.type_checking else at_top
            if name not in allowed:
                where = "inside a function" if item.in_function else "at module level"
                faults.append(f"{module} imports {item.name} {where}")
    assert faults == []


def is_torch_free(module: str) -> bool:
    return module in TORCH_FREE or module.split("/")[0] in TORCH_FREE


def test_torch_free_modules_name_torch_in_functions_only() -> None:
    faults = [
        f"{module} imports {item.name}"
        for module, tree in read_modules(PACKAGE)
        for item in iter_imports(tree)
        if item.name.split(".")[0] == "torch" and not (item.in_function or item.type_checking)
        if is_torch_free(module)
    ]
    assert faults == []


def test_torch_free_modules_load_no_torch() -> None:
    """Also through what they import."""
    modules = [
        f"ovsam_cli.{module.replace('/', '.')}"
        for module, _ in read_modules(PACKAGE)
        if is_torch_free(module) and not module.endswith("__init__")
    ]
    code = f"import sys, importlib\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
    code += "    assert 'torch' not in sys.modules, name\n"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_the_cli_talks_to_the_terminal() -> None:
    faults = []
    for module, tree in read_modules(PACKAGE):
        if module.startswith("cli/"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in ("print", "exit", "SystemExit"):
                faults.append(f"{module}:{node.lineno} uses {node.id}")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = f"{node.value.id}.{node.attr}"
                if used in ("sys.exit", "sys.argv", "sys.stdout", "sys.stderr", "os._exit"):
                    faults.append(f"{module}:{node.lineno} uses {used}")
    assert faults == []


def test_public_names() -> None:
    """Each resolves lazily, and the type checker sees the same ones."""
    public = sorted(set(ovsam_cli.__all__) - ROOT_NAMES)
    tree = ast.parse((PACKAGE / "__init__.py").read_bytes())
    typed = [
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        for statement in node.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    ]
    assert sorted(typed) == public
    for name in public:
        assert getattr(ovsam_cli, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ovsam_cli.nothing


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["label", "--help"], 0),
        (["models", "--help"], 0),
        (["lable"], 2),
        (["label"], 2),
        (["label", "--bogus"], 2),
        (["label", "x", "--vocab", "a,", "--out", "b", "--grid", "many"], 2),
        (["label", "x", "--vocab", "a,", "--out", "b", "--grid", "0"], 2),
        (["label", "x", "--vocab", "a,", "--out", "b", "--dtype", "int8"], 2),
        (["embed-vocab", "a,", "b,"], 2),
    ],
)
def test_help_and_mistakes_load_nothing_slow(arguments: list[str], exit_code: int) -> None:
    """Start-up is held by the modules that are loaded: seconds differ from machine to machine."""
    code = (
        "import sys\n"
        "from ovsam_cli.__main__ import main\n"
        f"sys.argv = ['ovsam', *{arguments!r}]\n"
        f"try:\n    main()\nexcept SystemExit as end:\n    assert end.code in ({exit_code}, None)\n"
        f"print(sorted({{*{SLOW_TO_IMPORT!r}}} & set(sys.modules)))\n"
        "other = [name for name in sys.modules if name.startswith('ovsam_cli.')]\n"
        "assert len(other) <= 9, other\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"
