"""One thread for tiny tensors, and a book of the test's own, so that no test runs or writes a real chapter."""

import nbformat
import pytest
import torch

from dynlib import paths
from dynlib.book import paperscale, zoo  # noqa: F401  zoo lets backbones.build know the authors' networks
from dynlib.book.cli import main
from dynlib.latency import Latency

V4 = nbformat.v4
torch.set_num_threads(1)  # on small tensors a second thread costs more time than it saves


class Book:
    """Chapters in a temporary folder that takes the place of the repository's."""

    def __init__(self, root):
        self.root, self.notebooks, self.executed = root, root / "notebooks", root / "executed"
        self.profiles, self.results, self.runs = self.notebooks / "profiles", root / "results", root / "runs"
        self.notebooks.mkdir()

    def chapter(self, name, *cells, parameters="alpha = 0.5  # share of low-frequency channels"):
        """Write a chapter of one cell of parameters and further cells of code."""
        notebook = V4.new_notebook(
            metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
        )
        notebook.cells = [V4.new_markdown_cell("# A chapter"), *map(V4.new_code_cell, (parameters, *cells))]
        notebook.cells[1].metadata["tags"] = ["parameters"]
        nbformat.write(notebook, self.notebooks / f"{name}.ipynb")

    def profile(self, profile, name, text):
        path = self.profiles / profile / f"{name}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def files(self):
        """Everything outside the sources: what a command left behind."""
        return sorted(
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if path.is_file() and self.notebooks not in path.parents
        )


@pytest.fixture
def book(tmp_path, monkeypatch):
    book = Book(tmp_path)
    for name, folder in {
        "NOTEBOOKS": book.notebooks,
        "PROFILES": book.profiles,
        "EXECUTED": book.executed,
        "RESULTS": book.results,
        "RUNS": book.runs,
    }.items():
        monkeypatch.setattr(paths, name, folder)
    return book


@pytest.fixture
def refused(capsys):
    """What the command says to what is wrong: one line, with status 2 and nothing beside it."""

    def ask(*arguments) -> str:
        assert main([str(argument) for argument in arguments]) == 2, arguments
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and len(err) <= 400, err
        return err

    return ask


@pytest.fixture
def stopwatch(monkeypatch):
    """A measurement without its process: what it was asked for, and made-up times."""
    asked = []

    def in_own_process(factory, arguments, **how):
        asked.append((factory, arguments, how))
        return Latency(how["batch"], how["threads"], "float32", 3.0, 2.0, 1.5, (1.4, 1.6), "eager", {"eager": 3.0}, 20)

    monkeypatch.setattr(paperscale.latency, "in_own_process", in_own_process)
    return asked
