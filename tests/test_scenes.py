"""Scenes: seeded to the byte, labels that the pixels bear out, clips that begin with their image."""

import pytest
import torch
import torch.nn.functional as F

from dynlib.data import DATASETS, load
from dynlib.data.scenes import BACKGROUND, CLASSES, DEFAULT_COUNT, FRAMES, MAX_SIDE, MIN_SIDE, MOTIONS, OUTLINES, make
from dynlib.errors import InputError


@pytest.fixture(scope="module")
def train():
    return make("train", 600)


@pytest.fixture(scope="module")
def clips():
    return make("train", 120, 64, kind="clips")


def test_shapes_types_and_names(train, clips):
    assert train.images.shape == (600, 3, 32, 32) and train.images.dtype == torch.uint8
    assert train.labels.shape == (600,) and train.labels.dtype == torch.int64
    assert train.masks.shape == (600, 32, 32) and train.masks.dtype == torch.uint8
    assert train.boxes.dtype == torch.float32 and train.boxes.shape == (len(train.box_labels), 4)
    assert train.classes == CLASSES and len(CLASSES) == DATASETS["scenes"].class_count
    assert clips.images.shape == (120, 3, FRAMES, 64, 64) and clips.classes == MOTIONS
    assert DATASETS["scenes"].splits == tuple(DEFAULT_COUNT)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(train):
    threads = torch.get_num_threads()
    again = make("train", 600)
    assert torch.get_num_threads() == threads  # rendering borrows this setting
    assert torch.equal(train.images, again.images) and train.checksum == again.checksum
    other = make("train", 600, seed=1)
    assert not torch.equal(train.images, other.images) and train.checksum != other.checksum


def test_train_and_val_share_no_scene():
    """Not even across seeds, where a split might have been made by adding one."""
    images = torch.cat([make(split, 40, 16, seed).images for split in ("train", "val") for seed in range(3)])
    assert len(images.flatten(1).unique(dim=0)) == len(images)


def test_more_scenes_begin_with_the_fewer(train):
    few = make("train", 150)
    assert torch.equal(few.images, train.images[:150]) and torch.equal(few.labels, train.labels[:150])


def test_another_size_shows_the_same_scenes(train):
    large = make("train", 100, 96)
    assert torch.equal(large.labels, train.labels[:100])
    shrunk = F.interpolate(large.images.float(), (32, 32), mode="area")
    assert (shrunk - train.images[:100]).abs().mean() < 15  # of 255; other scenes differ by more than 50
    assert (shrunk.flip(0) - train.images[:100]).abs().mean() > 50


def test_the_checksum_covers_the_arguments():
    made = [make("train", 4, 16), make("val", 4, 16), make("train", 5, 16), make("train", 4, 16, 1)]
    made.append(make("train", 4, 16, kind="clips"))
    assert len({samples.checksum for samples in made}) == len(made)


def test_every_class_and_motion_is_there_about_equally_often(train):
    assert (train.labels.bincount(minlength=len(CLASSES)) - 60).abs().max() < 30
    motions = make("train", 600, 16, kind="clips").labels.bincount(minlength=len(MOTIONS))
    assert (motions - 75).abs().max() < 35


def test_boxes_bound_the_mask_of_their_object(train):
    """Where an object stands alone, its box is the bound of its mask, and its class the label of the image."""
    alone = [i for i in range(len(train)) if (train.box_images == i).sum() == 1]
    assert 200 < len(alone) < 600
    for i in alone:
        ys, xs = torch.nonzero(train.masks[i] != BACKGROUND, as_tuple=True)
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert train.boxes[train.box_images == i][0].tolist() == [float(edge) for edge in box]
        assert train.box_labels[train.box_images == i].item() == train.labels[i]
        assert (train.masks[i][ys, xs] == train.labels[i]).all()


def test_every_image_has_the_box_of_its_label_first_and_companions_are_told_by_outline(train):
    assert train.box_images.tolist() == sorted(train.box_images.tolist())
    first = torch.searchsorted(train.box_images, torch.arange(len(train)))
    assert torch.equal(train.box_labels[first], train.labels)
    companion = torch.ones(len(train.boxes), dtype=torch.bool)
    companion[first] = False
    assert companion.any() and (train.box_labels[companion] < len(OUTLINES)).all()


def test_objects_cover_from_a_tenth_to_nine_tenths_of_the_side():
    samples = make("train", 600, 64)
    first = torch.searchsorted(samples.box_images, torch.arange(len(samples)))
    extent = (samples.boxes[first, 2:] - samples.boxes[first, :2]).max(1).values / 64
    assert MIN_SIDE * 0.6 < extent.min() < 0.16 and 0.8 < extent.max() <= MAX_SIDE + 2 / 64


def test_half_of_the_backgrounds_are_plain():
    """A plain one is a gradient with grain: its rows are nearly constant, seen through a 4-pixel mean."""
    samples = make("train", 200, 64)
    corner = F.avg_pool2d(samples.images[:, :, :16, :16].float(), 4).flatten(2).std(2).mean(1)
    behind = (samples.masks[:, :16, :16] == BACKGROUND).flatten(1).all(1)
    plain = (corner[behind] < 4).float().mean()
    assert 0.35 < plain < 0.85


def detail(images: torch.Tensor, inside: torch.Tensor) -> float:
    """Mean difference of neighbouring pixels (N, 1, H, W) inside."""
    across, down = images.diff(dim=-1)[..., 1:, :].abs(), images.diff(dim=-2)[..., 1:].abs()
    return float(((across + down) * inside[..., 1:, 1:]).sum() / inside[..., 1:, 1:].sum())


def test_shrinking_wipes_a_texture_out(train):
    found = {}
    for label in range(len(OUTLINES), len(CLASSES)):
        chosen = train.labels == label
        images = train.images[chosen].float().mean(1, keepdim=True)
        inside = 1 - F.max_pool2d((train.masks[chosen, None] != label).float(), 5, 1, 2)  # away from the outline
        shrunk = F.interpolate(F.avg_pool2d(images, 4), scale_factor=4, mode="bilinear")
        found[CLASSES[label]] = detail(images, inside), detail(shrunk, inside)
    plain, _ = found.pop("smooth pebble")
    for name, (full, shrunk) in found.items():
        assert full > 2 * plain and shrunk < full / 3, name


def test_the_first_frame_of_a_clip_is_the_image_of_its_seed(clips):
    images = make("train", 120, 64).images
    assert torch.equal(clips.images[:, :, 0], images)


def test_only_a_still_clip_stands_still(clips):
    change = (clips.images[:, :, 0].float() - clips.images[:, :, -1].float()).abs().amax((1, 2, 3))
    assert torch.equal(change == 0, clips.labels == MOTIONS.index("still"))


@pytest.mark.parametrize(
    ("motion", "axis", "sign"), [("left", -1, -1), ("right", -1, 1), ("up", -2, -1), ("down", -2, 1)]
)
def test_what_changes_in_a_moving_clip_moves_its_way(clips, motion, axis, sign):
    """The place of what differs from the time average moves with the object, on most clips far enough to see."""
    chosen = clips.images[clips.labels == MOTIONS.index(motion)].float().mean(1)  # (n, T, H, W)
    ahead = (chosen[:, -1] - chosen[:, 3]).abs(), (chosen[:, 0] - chosen[:, 3]).abs()
    other = -1 if axis == -2 else -2
    line = torch.arange(64.0)
    late, early = ((part.sum(other) * line).sum(-1) / part.sum((1, 2)) for part in ahead)
    assert len(chosen) > 5 and (sign * (late - early) > 0).float().mean() > 0.8


def test_load_hands_the_options_on_and_refuses_others():
    assert torch.equal(load("scenes", "val", n=3, size_px=16, seed=2).images, make("val", 3, 16, 2).images)
    for options, message in (
        ({"n": 0}, "n = 0"),
        ({"n": 2.5}, r"n = 2\.5"),
        ({"size_px": 8}, "size_px = 8: allowed is a whole number of 16 or more"),
        ({"seed": -1}, "seed = -1"),
        ({"count": 3}, "option 'count' of scenes: allowed are n, size_px, seed"),
    ):
        with pytest.raises(InputError, match=message):
            load("scenes", "train", **options)
    with pytest.raises(InputError, match="kind = 'videos': allowed are images, clips, masks, boxes"):
        make("train", 3, kind="videos")


def test_clips_of_scenes_are_a_data_set_of_their_own_whose_classes_are_motions():
    clips = load("scenes_clips", "val", n=3, size_px=16)
    assert torch.equal(clips.images, make("val", 3, 16, kind="clips").images)
    assert (clips.name, clips.classes, clips.images.shape) == ("scenes_clips", MOTIONS, (3, 3, 8, 16, 16))


def test_a_subset_keeps_masks_and_boxes_with_their_images(train):
    part = train.subset([7, 3])
    assert torch.equal(part.masks, train.masks[[7, 3]])
    assert torch.equal(part.boxes[part.box_images == 1], train.boxes[train.box_images == 3])
    assert part.box_labels[part.box_images == 0].tolist() == train.box_labels[train.box_images == 7].tolist()
