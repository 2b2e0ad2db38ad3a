"""No file of ours is ever read in a way that can run code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for name in ("policy", "transforms", "pipelines", "launch", "benchmarks")
    for path in sorted((ROOT / name).rglob("*.py"))
]
MODULES = {"dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {
    "eval",
    "exec",
    "compile",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "_pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "pandas.read_pickle",
    "pd.read_pickle",
}


def found_in(source: str) -> list[str]:
    """What in a module's source could run code out of a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name in CALLS or node.module in MODULES]
        elif isinstance(node, ast.Call):
            found += of_call(node)
    return found


def of_call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    unsafe = (
        name in CALLS
        or (name == "torch.load" and flags.get("weights_only") != "True")
        or flags.get("weights_only") == "False"
        or flags.get("allow_pickle", "False") != "False"
    )
    return [name] if unsafe else []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_reads_what_can_run_code(path: Path) -> None:
    assert found_in(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(b'')",
        "from pickle import load",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f)",
        "eval('1')",
        "exec('1')",
        "import joblib",
        "import shelve",
        "from marshal import loads",
    ],
)
def test_what_can_run_code_is_noticed(source: str) -> None:
    assert found_in(source)


def test_what_cannot_is_let_through() -> None:
    assert found_in("torch.load(f, weights_only=True)\nmodule.eval()\nnp.load(f)") == []
