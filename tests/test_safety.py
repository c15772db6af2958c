"""Nothing that is read is run: what ruff's rules cannot see of files that hold weights or arrays."""

import ast

from dynlib.paths import ROOT

FILES = sorted((ROOT / "dynlib").rglob("*.py"))


def unsafe(source: str) -> list[str]:
    """Calls that would unpickle: torch.load without weights_only=True, numpy's load with allow_pickle."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("torch.load", "np.load", "numpy.load"):
            continue
        told = {word.arg: ast.unparse(word.value) for word in node.keywords}
        is_safe = (
            told.get("weights_only") == "True"
            if "torch" in ast.unparse(node.func)
            else told.get("allow_pickle", "False") == "False"
        )
        found += [] if is_safe else [ast.unparse(node)]
    return found


def test_no_file_of_the_library_unpickles():
    found = {path.name: unsafe(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_the_check_sees_what_it_looks_for():
    assert (
        unsafe("torch.load(p)") and unsafe("torch.load(p, weights_only=False)") and unsafe("np.load(p, allow_pickle=x)")
    )
    assert not unsafe("torch.load(p, weights_only=True)") and not unsafe("np.load(p)")
