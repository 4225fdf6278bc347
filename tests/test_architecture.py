"""The layers, and what may not be imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dreamsr"
RANKS = {"errors": 0, "config": 1, "core": 2, "files": 3, "data": 4, "metrics": 4, "engine": 5, "cli": 6, "api": 6}
SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem in RANKS)


def layer(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "dreamsr" and len(parts) > 1 and parts[1] in RANKS else None


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_modules_import_from_lower_layers(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        other = layer(module)
        assert other is None or other == own or RANKS[other] < RANKS[own], f"{path} imports {module}"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("rich", {"cli/console.py"}),
        (
            "PIL",
            {
                f"files/{name}.py"
                for name in (
                    "arrays",
                    "decode",
                    "encode",
                    "images",
                    "limits",
                    "metadata",
                    "picture",
                    "tiff",
                    "uncertainty",
                )
            },
        ),
        ("pyvips", {"files/vips.py"}),
        ("safetensors", {"files/checkpoint.py"}),
        ("huggingface_hub", {"files/hub.py"}),
        ("onnxruntime", {"files/onnx.py"}),
        ("onnx_ir", {"files/onnx.py"}),
        ("jinja2", {"files/page.py"}),
        ("filelock", {"files/locks.py", "files/manifest.py"}),
    ],
)
def test_a_library_is_used_in_one_place(library: str, allowed: set[str]) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert users == allowed


def test_pickled_files_are_opened_in_two_places() -> None:
    """torch.load, as weights alone, of what is converted and of LPIPS's original files; nothing else that unpickles."""
    for path in PACKAGE.rglob("*.py"):
        assert not {"pickle", "dill", "joblib", "torch.load"} & imports(path), path
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        loads = [n for n in calls if ast.unparse(n.func) in ("torch.load", "torch.jit.load", "np.load", "numpy.load")]
        assert not loads or path.relative_to(PACKAGE).as_posix() in ("files/sr3.py", "files/lpips_weights.py"), path
        for call in loads:
            assert ast.unparse(call.func) == "torch.load"
            assert "weights_only=True" in [ast.unparse(keyword) for keyword in call.keywords]


def test_the_core_knows_no_files_and_no_screen() -> None:
    for path in (PACKAGE / "core").glob("*.py"):
        assert not {"os", "io", "pathlib", "sys", "logging"} & imports(path), path
        called = {
            n.func.id
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        assert not {"open", "print", "input"} & called, path


def test_there_is_no_cycle() -> None:
    names = {
        ".".join(("dreamsr", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): p
        for p in PACKAGE.rglob("*.py")
    }
    graph = {name: {m for m in imports(path) if m in names and m != name} for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("arguments", [["--help"], ["upscale", "--help"], ["train", "-h"], ["eval", "-h"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from dreamsr.cli.app import main\n"
        f"sys.argv = ['dreamsr', *{arguments}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'PIL', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
