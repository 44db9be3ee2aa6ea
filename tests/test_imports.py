"""Imports run one way, from the small and pure to the large; nobody reaches back."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "sphereface"

# what each part may import from the package, besides itself
ALLOWED = {
    "errors": set(),
    "choices": set(),
    "option_values": set(),
    "options": {"errors", "option_values"},
    "augmentation": {"options"},
    "small_files": {"errors", "files", "options"},
    "yaml_text": {"errors"},
    "config_files": {"errors", "options", "places", "small_files", "yaml_text"},
    "config_sections": {"errors", "options", "augmentation"},
    "input_spec": set(),
    "onnx_input": {"errors", "input_spec"},
    "extras": {"errors"},
    "backbone_options": {"errors", "input_spec", "options"},
    "config": {"errors", "options", "input_spec", "backbone_options", "config_files", "config_sections", "places"},
    "schedules": {"errors"},
    "metrics": {"errors"},
    "archives": set(),
    "files": set(),
    "file_kinds": {"archives", "files"},
    "checkpoint_meta": {"errors", "options"},
    "checkpoint": {"errors", "archives", "file_kinds", "files", "small_files", "checkpoint_meta"},
    "checkpoint_place": {"errors", "files", "small_files"},
    "device": {"errors", "choices"},
    "plots": {"errors"},
    "plugins": {"errors"},
    "models": {
        *(
            "errors",
            "choices",
            "extras",
            "archives",
            "file_kinds",
            "files",
            "options",
            "plugins",
            "input_spec",
            "onnx_input",
            "backbone_options",
            "config",
            "checkpoint",
            "device",
        )
    },
    "losses": {"errors", "options", "schedules", "device"},
    "geometry": {"losses"},
    "alignment": {"errors", "choices", "files", "data"},
    "data": {"errors", "extras", "archives", "files", "augmentation", "input_spec"},
    "places": {"errors"},
    "weights": set(),
    "evaluation": {
        *("errors", "archives", "files", "metrics", "checkpoint", "data", "models", "options", "places", "onnx_input"),
        *("small_files", "yaml_text", "checkpoint_meta", "plugins"),
    },
    "training": {
        *("errors", "options", "config", "config_sections", "small_files", "yaml_text"),
        *("schedules", "metrics", "checkpoint", "device", "extras", "archives", "files"),
        *("input_spec", "backbone_options", "places", "onnx_input"),
        *("models", "losses", "data", "alignment", "evaluation", "weights", "plugins"),
    },
    "faces": {"errors", "choices", "files", "data", "alignment", "evaluation"},
    "embedded": {"errors", "faces"},
    "match": {"errors", "evaluation", "weights"},
    "api": {
        "embedded",
        "match",
        "errors",
        "files",
        "checkpoint",
        "device",
        "models",
        "alignment",
        "evaluation",
        "faces",
        "weights",
        "plugins",
    },
    "gallery_check": {"errors", "evaluation"},
    "gallery": {"errors", "archives", "evaluation", "gallery_check"},
    "image_list": {"errors", "files", "alignment", "data", "faces"},
    "gallery_part": {"errors", "evaluation", "training", "api", "embedded", "gallery", "image_list"},
    "gallery_plan": {"errors", "evaluation", "gallery", "gallery_part", "image_list"},
    "gallery_update": {
        *("errors", "files", "evaluation", "training", "api", "gallery_part", "gallery_plan", "image_list"),
    },
    "search": {"errors", "gallery"},
    "search_index": {"errors", "extras", "files", "options", "small_files", "evaluation", "gallery", "search"},
    "export": {
        *("errors", "choices", "extras", "files", "checkpoint", "models", "data", "alignment", "input_spec", "options"),
        *("small_files", "yaml_text", "plugins"),
    },
    "face_figures": {"errors", "files", "small_files"},
    "cli": {"errors", "plugins"},
    "__main__": {"cli"},
    "commands": {
        *(
            "errors",
            "choices",
            "archives",
            "files",
            "config",
            "config_files",
            "checkpoint",
            "device",
            "models",
            "data",
            "alignment",
        ),
        *("evaluation", "plots", "geometry"),
        *(
            "training",
            "faces",
            "api",
            "gallery",
            "gallery_part",
            "gallery_update",
            "image_list",
            "search",
            "search_index",
            "export",
            "face_figures",
            "input_spec",
            "backbone_options",
            "places",
        ),
        *("onnx_input", "small_files", "yaml_text", "weights", "checkpoint_place"),
    },
}
WITHOUT_TORCH = {
    "choices",
    "errors",
    "options",
    "option_values",
    "augmentation",
    "input_spec",
    "backbone_options",
    "config",
    "config_files",
    "config_sections",
    "small_files",
    "yaml_text",
    "schedules",
    "metrics",
    "onnx_input",
    "places",
    "weights",
    "checkpoint_place",
}


def imports_of(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, relative ones resolved."""
    package = ["sphereface", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found.add(".".join([*base, *([node.module] if node.module else [])]))
    return found


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_part_imports_only_what_stands_below_it():
    for path in PACKAGE.rglob("*.py"):
        part = part_of(path)
        if part == "__init__":
            continue
        used = {name.split(".")[1] for name in imports_of(path) if name.startswith("sphereface.")} - {part}
        assert used <= ALLOWED[part], f"{path.name} imports {used - ALLOWED[part]}"


def test_the_allowed_imports_have_no_circle():
    order: list[str] = []
    rest = dict(ALLOWED)
    while rest:
        free = [part for part, below in rest.items() if below <= set(order)]
        assert free, f"a circle among {sorted(rest)}"
        order += free
        rest = {part: below for part, below in rest.items() if part not in free}


def test_the_pure_parts_know_no_torch():
    for path in PACKAGE.glob("*.py"):
        if part_of(path) in WITHOUT_TORCH:
            assert not any(name.split(".")[0] == "torch" for name in imports_of(path)), path.name


def test_a_table_of_embeddings_is_evaluated_without_torch():
    """It costs half a gigabyte of memory and seconds, which IJB's size has better use for."""
    code = "import sys; import sphereface.commands.eval; print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
