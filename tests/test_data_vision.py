"""torchvision's layouts: packed without loss, whole or not at all; folders decoded the same by any workers."""

import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from dynlib import train
from dynlib.book import runs
from dynlib.data import FolderBatches, hold_out, load, load_folder, pack
from dynlib.errors import InputError

WNIDS = ("n01440764", "n02102040")


def noise(index: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(index)
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator)


def save(image: torch.Tensor, path: Path) -> None:
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


def imagenette(folder: Path) -> Path:
    """As torchvision leaves it: <folder>/imagenette2-320/<split>/<wnid>/*.JPEG, sizes differing."""
    for split, count in (("train", 3), ("val", 2)):
        for label, wnid in enumerate(WNIDS):
            path = folder / "imagenette2-320" / split / wnid
            path.mkdir(parents=True)
            for index in range(count):
                save(noise(10 * label + index, 20, 24 + index), path / f"{index}.JPEG")
    return folder


def test_imagenette_is_packed_with_its_own_files(tmp_path):
    original = imagenette(tmp_path / "torchvision" / "imagenette")
    folder = pack("imagenette", tmp_path, download=False)
    assert folder == tmp_path / "imagenette"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "train.npz", "val.npz"]
    samples = load("imagenette", "train", tmp_path, size_px=16)
    assert samples.labels.tolist() == [0, 0, 0, 1, 1, 1] and samples.classes == ("tench", "English springer")
    packed = np.load(folder / "train.npz")["data"].tobytes()
    assert packed == b"".join(file.read_bytes() for file in sorted(original.glob("*/train/*/*.JPEG")))
    assert load("imagenette", "val", tmp_path, size_px=16).images.shape == (4, 3, 16, 16)


def test_the_readme_states_source_counts_and_the_checksum_that_reading_checks(tmp_path):
    imagenette(tmp_path / "torchvision" / "imagenette")
    readme = pack("imagenette", tmp_path, download=False) / "README.md"
    text = readme.read_text()
    assert "torchvision.datasets.Imagenette" in text and "6 images" in text and "4 images" in text
    checksum = load("imagenette", "val", tmp_path, size_px=16).checksum
    assert f"{checksum}  val.npz" in text
    readme.write_text(text.replace(checksum, "f" * 64))
    with pytest.raises(InputError, match="sha256"):
        load("imagenette", "val", tmp_path)


def test_packing_twice_gives_the_same_bytes(tmp_path):
    roots = tmp_path / "a", tmp_path / "b"
    for root in roots:
        imagenette(root / "torchvision" / "imagenette")
    one, two = ((pack("imagenette", root, download=False) / "train.npz").read_bytes() for root in roots)
    assert one == two


def test_cifar_is_packed_without_loss(tmp_path, monkeypatch):
    class TinyCifar:
        def __init__(self, root: Path, train: bool, download: bool) -> None:
            if download:
                (Path(root) / "cifar-10-batches-py").mkdir(exist_ok=True)
            self.data = (
                torch.stack([noise(index + 50 * train, 32, 32) for index in range(4)]).permute(0, 2, 3, 1).numpy()
            )
            self.targets, self.classes = [1, 0, 1, 1], ["apple", "bear"]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", TinyCifar)
    pack("cifar10", tmp_path)
    samples = load("cifar10", "train", tmp_path)
    assert torch.equal(samples.images, torch.stack([noise(index + 50, 32, 32) for index in range(4)]))
    assert samples.labels.tolist() == [1, 0, 1, 1] and samples.classes == ("apple", "bear")
    assert (tmp_path / "torchvision" / "cifar10" / "cifar-10-batches-py").is_dir()
    assert not list(tmp_path.rglob("*.part"))


def test_a_failed_download_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    def offline(root: Path, train: bool, download: bool) -> None:
        (Path(root) / "half").touch()
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", offline)
    for _ in range(2):
        with pytest.raises(InputError, match=r"cifar100 cannot be had .*no network"):
            pack("cifar100", tmp_path)
    assert not (tmp_path / "cifar100").exists() and not (tmp_path / "torchvision" / "cifar100").exists()


def test_packing_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(InputError, match="'camvid' cannot be packed: allowed are cifar10, cifar100, imagenette"):
        pack("camvid", tmp_path)
    with pytest.raises(InputError, match=r"no folder .*torchvision.imagenette"):
        pack("imagenette", tmp_path, download=False)
    (tmp_path / "torchvision" / "imagenette").mkdir(parents=True)
    with pytest.raises(InputError, match="imagenette cannot be had"):
        pack("imagenette", tmp_path, download=False)
    (tmp_path / "imagenette").mkdir()
    with pytest.raises(InputError, match="imagenette is there already"):
        pack("imagenette", tmp_path)


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    for label, wnid in enumerate(WNIDS):
        path = tmp_path / "imagenet" / "train" / wnid
        path.mkdir(parents=True)
        for index in range(4):
            save(noise(10 * label + index, 30, 40 + index), path / f"{index}.png")
    return tmp_path


def test_a_folder_is_listed_and_left_on_the_disk(imagenet):
    samples = load("imagenet", "train", imagenet)
    assert (samples.name, samples.split, samples.classes, len(samples)) == ("imagenet", "train", WNIDS, 8)
    assert samples.labels.tolist() == [0] * 4 + [1] * 4
    assert samples.checksum == load_folder(imagenet / "imagenet" / "train", "imagenet").checksum
    samples.files[0].unlink()
    assert samples.checksum != load("imagenet", "train", imagenet).checksum


def test_images_of_a_folder_are_held_out_as_others_are(imagenet):
    samples = load("imagenet", "train", imagenet)
    kept, held = hold_out(samples, 2, seed=0)
    assert (len(kept), held.labels.tolist()) == (6, [0, 1]) and kept.checksum != samples.checksum != held.checksum
    assert sorted([*kept.files, *held.files]) == sorted(samples.files)
    seen = [runs._seen_in(train.Phase("p", images=of), FolderBatches(kept, 2)).samples for of in ("all", "most")]
    assert seen[0] is kept and seen[1].files == kept.files, "of six none is the tenth"


def test_evaluation_reads_the_centre_in_order(imagenet):
    samples = load("imagenet", "train", imagenet)
    batches = FolderBatches(samples, 3, size_px=26, workers=0, mean=(0, 0, 0), std=(1, 1, 1))
    images, labels = (torch.cat(parts) for parts in zip(*batches.epoch(None), strict=True))
    assert len(batches) == 3 and images.shape == (8, 3, 26, 26) and torch.equal(labels, samples.labels)
    # 0.875 of the shorter side, 30, is 26 px: no resize, 2 px off top and bottom, (40 - 26) / 2 off left
    torch.testing.assert_close((images[0] * 255).round(), noise(0, 30, 40)[:, 2:28, 7:33].float())


def test_training_draws_depend_on_the_generator_and_not_on_the_workers(imagenet):
    samples = load("imagenet", "train", imagenet)

    def epoch(seed: int, workers: int) -> torch.Tensor:
        batches = FolderBatches(samples, 4, size_px=16, workers=workers)
        return torch.cat([images for images, _ in batches.epoch(torch.Generator().manual_seed(seed))])

    state = torch.get_rng_state()
    assert torch.equal(epoch(1, 0), epoch(1, 2)) and not torch.equal(epoch(1, 0), epoch(2, 0))
    assert torch.equal(state, torch.get_rng_state())


def test_a_folder_without_images_and_a_broken_image_are_refused(imagenet):
    with pytest.raises(InputError, match=r"no images in .*val: allowed is a folder of class folders"):
        load("imagenet", "val", imagenet)
    with pytest.raises(InputError, match="option 'size_px' of imagenet: allowed are none"):
        load("imagenet", "train", imagenet, size_px=32)
    samples = load("imagenet", "train", imagenet)
    samples.files[0].write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0\.png cannot be decoded"):
        next(FolderBatches(samples, 2, workers=0).epoch(None))
    with pytest.raises(InputError, match="workers is -1; it is a whole number from 0"):
        FolderBatches(samples, 2, workers=-1)
