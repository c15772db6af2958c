"""Without extras, the methods convert, count, train and deploy: nothing of the book's own is imported."""

import subprocess
import sys

from dynlib.papers import METHODS
from dynlib.paths import ROOT

EXTRAS = (
    "pandas",
    "matplotlib",
    "seaborn",
    "joblib",
    "dask",
    "distributed",
    "papermill",
    "IPython",
    "nbformat",
    "sphinx",
    "scipy",
    "altair",
    "vl_convert",
)
PROGRAM = f"""
import sys
for name in {EXTRAS}:
    sys.modules[name] = None  # whoever imports it fails, as where it is not installed
import dynlib.backbones, dynlib.cost, dynlib.data, dynlib.latency, dynlib.tasks, dynlib.train
from dynlib import papers
from dynlib.book.cli import main
for key in {tuple(METHODS)}:
    papers.method(key)
import dynlib.book.paperscale, dynlib.book.recipes, dynlib.book.runs
import torch
from dynlib import backbones, train
from dynlib.papers import octconv
images = torch.rand(4, 3, 32, 32)
net = octconv.convert(backbones.build("cifar_resnet20", 2), octconv.Config())
train.fit(net, [(images, torch.arange(4) % 2)], train.Schedule(epochs=1), seed=0)
print(octconv.deploy(net.eval(), images, threads=1)(images).shape)
sys.exit(main(["cost", "octconv", "--arch", "resnet18", "--size", "64"]))
"""


def test_converting_training_deploying_and_counting_need_nothing_of_the_book():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([4, 2])" in done.stdout and "octconv on resnet18" in done.stdout
