"""A data file that is damaged, or lies about its size, is refused in one line before it costs time or memory."""

import io
import zipfile

import numpy as np
import pytest

from dynlib.data import packed
from dynlib.errors import InputError


def whole() -> dict:
    file = io.BytesIO()
    from PIL import Image

    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "PNG")
    data = np.frombuffer(file.getvalue(), np.uint8)
    return {"data": data, "offset": np.array([0, len(data)]), "label": np.array([0]), "class_name": np.array(["a"])}


def write(path, **changed):
    np.savez(path, **whole() | changed)


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
    write(tmp_path / "val.npz")
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
    write(tmp_path / "train.npz", **boxes)
    refused(tmp_path / "train.npz", "a box reaches beyond its image", "detection")
