"""Packed data sets: what is read is what was packed, and nothing damaged gets in."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dynlib.data import DATASETS, load, packed
from dynlib.errors import InputError


def pngs(images: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """PNG files in a row and where each begins, of (3, H, W), or (1, H, W) for masks."""
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(file, "PNG")
        files.append(np.frombuffer(file.getvalue(), np.uint8))
    return np.concatenate(files), np.cumsum([0, *map(len, files)])


def photographs(count: int, height: int = 12, width: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator) for _ in range(count)]


def write(root: Path, name: str, split: str, images: list[torch.Tensor], **arrays: np.ndarray) -> Path:
    data, offset = pngs(images)
    path = root / name / f"{split}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{"data": data, "offset": offset, **arrays})
    return path


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    return write(tmp_path, "cifar10", "train", photographs(5), label=np.array([3, 0, 9, 9, 1], np.uint8))


def test_pixels_and_labels_come_back_as_packed(cifar):
    samples = load("cifar10", "train", cifar.parent.parent)
    assert torch.equal(samples.images, torch.stack(photographs(5))) and samples.images.dtype == torch.uint8
    assert samples.labels.tolist() == [3, 0, 9, 9, 1] and samples.labels.dtype == torch.int64
    assert (samples.name, samples.split, len(samples)) == ("cifar10", "train", 5)
    assert samples.classes[3] == "cat"
    assert samples.checksum == hashlib.sha256(cifar.read_bytes()).hexdigest()


def test_the_class_names_in_a_file_are_used(tmp_path):
    write(tmp_path, "imagenette224", "val", photographs(2), label=np.array([0, 1]), class_name=np.array(["a", "b"]))
    assert load("imagenette224", "val", tmp_path).classes == ("a", "b")


def test_classes_can_be_told_apart_among_those_that_a_network_knows(tmp_path):
    names = np.array(list("abcdefghij"))
    write(tmp_path, "imagenette224", "val", photographs(3), label=np.array([0, 1, 9]), class_name=names)
    samples = load("imagenette224_of_1000", "val", tmp_path)
    assert samples.labels.tolist() == [0, 217, 701]
    assert (samples.name, len(samples.classes), samples.classes[217]) == ("imagenette224_of_1000", 1000, "b")


def test_masks_come_with_their_images_and_follow_a_resize(tmp_path):
    mask = torch.zeros(1, 12, 16, dtype=torch.uint8)
    mask[:, 6:, 8:] = 2
    data, offset = pngs([mask, mask.flip(1)])
    names = np.array(["sky", "road", "void"])
    write(tmp_path, "camvid", "train", photographs(2), label_data=data, label_offset=offset, class_name=names)
    samples = load("camvid", "train", tmp_path)
    assert torch.equal(samples.masks, torch.cat([mask, mask.flip(1)])) and samples.labels is None
    half = load("camvid", "train", tmp_path, size_px=(6, 8))
    assert half.images.shape == (2, 3, 6, 8) and torch.equal(half.masks, samples.masks[:, ::2, ::2])


def test_boxes_follow_a_resize_and_a_subset(tmp_path):
    boxes = np.array([[2, 4, 8, 12], [0, 0, 16, 12], [1, 1, 2, 2]], np.float32)
    arrays = {"box": boxes, "box_label": np.array([0, 1, 1]), "box_image": np.array([0, 1, 1])}
    images = [*photographs(1), *photographs(1, 24, 32)]
    write(tmp_path, "bccd", "train", images, class_name=np.array(["RBC", "WBC"]), **arrays)
    with pytest.raises(InputError, match=r"train\.npz: its images have different sizes; .* with size_px"):
        load("bccd", "train", tmp_path)
    resized = load("bccd", "train", tmp_path, size_px=(6, 8))
    assert resized.images.shape == (2, 3, 6, 8) and resized.box_images.tolist() == [0, 1, 1]
    assert resized.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 4, 3], [0.25, 0.25, 0.5, 0.5]]
    turned = resized.subset([1, 0])
    assert turned.box_images.tolist() == [0, 0, 1] and turned.box_labels.tolist() == [1, 1, 0]
    assert torch.equal(turned.boxes, resized.boxes[[1, 2, 0]])


def test_a_subset_picks_in_order_and_has_a_checksum_of_its_own(cifar):
    samples = load("cifar10", "train", cifar.parent.parent)
    part = samples.subset([4, 0])
    assert part.labels.tolist() == [1, 3] and torch.equal(part.images, samples.images[[4, 0]])
    assert len({samples.checksum, part.checksum, samples.subset([0, 4]).checksum}) == 3
    assert part.checksum == samples.subset(torch.tensor([4, 0])).checksum
    with pytest.raises(InputError, match=r"index 5 .* 0 to 4"):
        samples.subset([0, 5])


def test_a_stated_checksum_must_hold(cifar):
    readme = cifar.with_name("README.md")
    readme.write_text(f"```\n{hashlib.sha256(cifar.read_bytes()).hexdigest()}  train.npz\n```\n")
    assert len(load("cifar10", "train", cifar.parent.parent)) == 5
    readme.write_text(f"```\n{'0' * 64}  train.npz\n```\n")
    with pytest.raises(InputError, match=r"train.npz has sha256 .* allows 0000"):
        load("cifar10", "train", cifar.parent.parent)


def test_a_pickle_is_refused(tmp_path):
    write(tmp_path, "cifar10", "train", photographs(1), label=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="without pickles"):
        load("cifar10", "train", tmp_path)


GOOD = dict(zip(("data", "offset"), pngs(photographs(2)), strict=True)) | {"label": np.array([0, 1])}
LENGTH = len(GOOD["data"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "no key label: its keys are data, offset"),
        ({"offset": None}, "no key offset"),
        ({"data": None}, "no key data"),
        ({"offset": np.array([0, LENGTH + 1])}, "offset does not climb"),
        ({"offset": np.array([0, 50, 20, LENGTH])}, "offset does not climb"),
        ({"offset": np.array([1, 50, LENGTH])}, "offset does not climb"),
        ({"offset": np.array([0.0, 50.0, LENGTH])}, "offset does not climb"),
        ({"data": GOOD["data"].astype(np.int16)}, "allowed is uint8"),
        ({"offset": np.array([0, 50, LENGTH])}, "image [01] cannot be decoded"),
        ({"label": np.array([0, 10])}, "label runs from 0 to 10, allowed is 0 to 9"),
        ({"label": np.array([-1, 3])}, "label runs from -1 to 3"),
        ({"label": np.array([0])}, "allowed is whole numbers"),
        ({"label": np.array([0.5, 1.0])}, "allowed is whole numbers"),
    ],
)
def test_a_damaged_array_is_refused_in_one_line(tmp_path, change, message):
    arrays = {key: values for key, values in (GOOD | change).items() if values is not None}
    (tmp_path / "cifar10").mkdir()
    np.savez(tmp_path / "cifar10" / "train.npz", **arrays)
    with pytest.raises(InputError, match=message) as caught:
        load("cifar10", "train", tmp_path)
    assert "train.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_masks_of_another_size_or_class_are_refused(tmp_path):
    names = np.array(["sky", "void"])
    for mask, message in ((torch.zeros(1, 3, 3), "differ from their images"), (torch.full((1, 12, 16), 2), "class 2")):
        data, offset = pngs([mask.to(torch.uint8)])
        write(tmp_path, "camvid", "val", photographs(1), label_data=data, label_offset=offset, class_name=names)
        with pytest.raises(InputError, match=message):
            load("camvid", "val", tmp_path)


@pytest.mark.parametrize("box", [[[3, 3, 3, 5]], [[3, 3, float("nan"), 5]], [[1, 2, 3]]])
def test_a_box_without_area_is_refused(tmp_path, box):
    arrays = {"box": np.array(box, np.float32), "box_label": np.array([0]), "box_image": np.array([0])}
    write(tmp_path, "bccd", "val", photographs(1), class_name=np.array(["RBC"]), **arrays)
    with pytest.raises(InputError, match=r"val\.npz: box"):
        load("bccd", "val", tmp_path)


def refused(path, match, task="classification"):
    with pytest.raises(InputError, match=match) as caught:
        packed.read(path, task)
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_link_that_leads_nowhere_are_no_files(tmp_path):
    (tmp_path / "train.npz").mkdir()
    refused(tmp_path / "train.npz", "cannot be read .* allowed is a file")
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
    refused(tmp_path / "loop.npz", "no file")


def test_an_archive_that_grows_beyond_reason_is_not_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "train.npz", data=np.zeros(2**27, np.uint8))
    refused(tmp_path / "train.npz", r"unpack to 134,2")


def test_a_plain_array_and_an_encrypted_archive_are_no_data_sets(tmp_path):
    with (tmp_path / "train.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    refused(tmp_path / "train.npz", "not a whole .npz file")
    np.savez(tmp_path / "val.npz", **GOOD)
    content = bytearray((tmp_path / "val.npz").read_bytes())
    for name in (b"PK\x03\x04", b"PK\x01\x02"):  # the flag that says encrypted, in both headers of each part
        at = content.find(name)
        while at >= 0:
            content[at + (6 if name[2] == 3 else 8)] |= 1
            at = content.find(name, at + 4)
    (tmp_path / "val.npz").write_bytes(content)
    refused(tmp_path / "val.npz", "not a whole .npz file")


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path):
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000000,), }"
    with zipfile.ZipFile(tmp_path / "train.npz", "w") as archive:
        archive.writestr("data.npy", header.ljust(127) + b"\n")
    refused(tmp_path / "train.npz", "not a whole .npz file")


def test_a_box_outside_its_image_is_refused(tmp_path):
    boxes = {"box": np.array([[1.0, 1.0, 40.0, 5.0]]), "box_label": np.array([0]), "box_image": np.array([0])}
    path = write(tmp_path, "bccd", "train", photographs(1), class_name=np.array(["RBC"]), **boxes)
    refused(path, "a box reaches beyond its image", "detection")


def test_what_is_absent_is_named_with_what_is_allowed(cifar):
    root = cifar.parent.parent
    with pytest.raises(InputError, match=r"no file .*test\.npz: the folder has train\.npz"):
        load("cifar10", "test", root)
    with pytest.raises(
        InputError, match=r"no data in .*absent.cifar10: .*python -m dynlib data cifar10 .*cifar10/train\.npz"
    ):
        load("cifar10", "train", root / "absent")
    with pytest.raises(InputError, match=r"no data in .*camvid: allowed are scenes.*camvid/train\.npz"):
        load("camvid", "train", root)
    with pytest.raises(
        InputError, match="data set 'cifar11': allowed are scenes, scenes_clips, scenes_masks, scenes_boxes, cifar10"
    ):
        load("cifar11", "train", root)
    with pytest.raises(InputError, match="split 'val' of cifar10: allowed are train, test"):
        load("cifar10", "val", root)
    with pytest.raises(InputError, match="option 'seed' of cifar10: allowed are size_px"):
        load("cifar10", "train", root, seed=1)
    with pytest.raises(InputError, match="size_px = 0"):
        load("cifar10", "train", root, size_px=0)


def test_the_registry_says_enough_for_a_listing():
    for name, dataset in DATASETS.items():
        assert dataset.task in ("classification", "segmentation", "detection"), name
        assert len(dataset.splits) >= 2 and dataset.splits[0] == "train", name
        assert "\n" not in dataset.description and dataset.class_count > 1, name
        assert dataset.classes is None or len(dataset.classes) == dataset.class_count, name
