"""Networks for pixels and for boxes: their heads, data and scores, and the method that trains on all of them."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models.segmentation import fcn_resnet50

from dynlib import cost, tasks, train
from dynlib.backbones import hosts
from dynlib.book import recipes, runs
from dynlib.book.recipes import Recipe
from dynlib.data import IGNORED, Batches, DetectionBatches, Samples, load
from dynlib.data.augment import flip_with_boxes
from dynlib.errors import InputError
from dynlib.papers import octconv, sampling
from dynlib.papers.sampling.masks import samplers

CPU = train.Hardware("cpu")
SEGMENTATION, DETECTION = tasks.TASKS["segmentation"], tasks.TASKS["detection"]


def batches(name, n=8, split="train"):
    kind = DetectionBatches if name == "scenes_boxes" else Batches
    return kind(load(name, split, n=n, size_px=64), 4)


# ------------------------------------------------------------------------------------------------------------- networks


def test_the_dilated_network_is_torchvisions_and_its_weights_fit():
    with torch.device("meta"):
        ours, theirs = hosts.segmenter("resnet50", 4), fcn_resnet50(num_classes=4, weights_backbone=None)
    layers = dict(theirs.named_modules())
    for name, layer in ours.named_modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            assert repr(layer) == repr(layers[name.replace("head", "classifier")])
    assert len(ours.state_dict()) == len(theirs.state_dict())


@pytest.mark.parametrize("arch", ["resnet18", "resnet50_v1", "resnext50_32x4d"])
def test_a_dilated_backbone_of_any_block_keeps_an_eighth_of_the_image(arch):
    net = hosts.segmenter(arch, 5, width=8)
    shapes = cost.layer_sizes(net, (64, 96))
    assert [shapes[f"backbone.layer{i}.1.conv2"][1:] for i in (1, 2, 3, 4)] == [(16, 24)] + [(8, 12)] * 3
    assert net(torch.rand(2, 3, 60, 70)).shape == (2, 5, 60, 70)


def test_the_heads_of_a_detector_shrink_with_its_backbone_and_it_counts_backbone_and_pyramid():
    net = hosts.detector("resnet18", 3, width=16)
    assert net.backbone.out_channels == 64 and net.roi_heads.box_head.fc7.out_features == 256
    assert net.roi_heads.box_predictor.cls_score.out_features == 4
    part, size = DETECTION.counted(net, (90, 120))
    assert size == (96, 128)
    assert cost.closed_form(part, size).by_layer == cost.count(net.backbone, cost.example(size)).by_layer


def test_a_detector_sees_images_as_they_are_padded_and_boxes_are_in_their_pixels():
    net, seen = hosts.detector("resnet18", 3, width=8), []
    net.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 90, 120)
    net(images, [{"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([1])}] * 2)
    with torch.no_grad():
        found = net.eval()(images)[0]
    assert set(found) == {"boxes", "labels", "scores"}
    assert (found["boxes"] >= 0).all() and (found["boxes"] <= torch.tensor([120.0, 90] * 2)).all()
    for batch in seen:
        assert batch.shape == (2, 3, 96, 128) and torch.equal(batch[..., :90, :120], images)
        assert batch[..., 90:, :].count_nonzero() == batch[..., 120:].count_nonzero() == 0


# ----------------------------------------------------------------------------------------------------------------- data


def test_boxes_follow_the_flip():
    boxes = [torch.tensor([[1.0, 2, 4, 5]]), torch.tensor([[0.0, 0, 3, 6], [5, 1, 8, 4]]), torch.zeros(0, 4)] * 4
    images = torch.zeros(12, 1, 6, 8, dtype=torch.uint8)
    for image, found in zip(images, boxes, strict=True):
        for value, (x1, y1, x2, y2) in enumerate(found.int().tolist(), 1):
            image[:, y1:y2, x1:x2] = value
    moved, followed = flip_with_boxes(images, boxes, torch.Generator().manual_seed(0))
    for image, found in zip(moved, followed, strict=True):
        again = torch.zeros_like(image)
        for value, (x1, y1, x2, y2) in enumerate(found.int().tolist(), 1):
            again[:, y1:y2, x1:x2] = value
        assert torch.equal(image, again)
    assert 0 < sum(not torch.equal(a, b) for a, b in zip(moved, images, strict=True)) < 12


def test_a_detector_gets_the_boxes_of_each_image_with_labels_from_1():
    samples = Samples(
        name="toy",
        split="train",
        images=torch.zeros(3, 3, 6, 8, dtype=torch.uint8),
        labels=None,
        classes=("a", "b"),
        checksum="0" * 64,
        boxes=torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [2, 2, 4, 4]]),
        box_labels=torch.tensor([0, 1, 0]),
        box_images=torch.tensor([2, 0, 2]),
    )
    ((images, targets),) = DetectionBatches(samples, 3, mean=(0.0,) * 3, std=(1.0,) * 3).epoch(None)
    assert images.shape == (3, 3, 6, 8)
    assert [target["labels"].tolist() for target in targets] == [[2], [], [1, 1]]
    assert targets[1]["boxes"].shape == (0, 4) and targets[2]["boxes"][:, 0].tolist() == [0, 2]
    with pytest.raises(InputError, match="scenes_masks/train has no boxes"):
        DetectionBatches(load("scenes_masks", "train", n=2), 2)


def test_scenes_show_the_same_images_whatever_the_targets():
    plain, masks, boxes = (load(name, "val", n=4) for name in ("scenes", "scenes_masks", "scenes_boxes"))
    assert torch.equal(masks.images, plain.images) and torch.equal(boxes.images, plain.images)
    assert torch.equal(masks.masks, plain.masks) and torch.equal(boxes.boxes, plain.boxes)
    assert masks.classes[-1] == "background" and len(masks.classes) == masks.masks.max() + 1
    assert len({plain.checksum, masks.checksum, boxes.checksum}) == 3
    assert [tasks.of(part(samples, 2)).name for part, samples in ((Batches, plain), (DetectionBatches, boxes))] == [
        "classification",
        "detection",
    ]


# --------------------------------------------------------------------------------------------------------------- scores


class Always(nn.Module):
    """Answers the same, whatever it is asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.weight = answer, nn.Parameter(torch.zeros(()))

    def forward(self, images):
        return self.answer


def pixels(mask, void=None):
    images = torch.zeros(1, 3, 2, 3, dtype=torch.uint8)
    samples = Samples("toy", "val", images, None, ("a", "b", "c"), "0" * 64, masks=torch.tensor([mask]).byte())
    return Batches(replace(samples, void=void), 1, mean=(0.0,) * 3, std=(1.0,) * 3)


def test_intersection_over_union_is_the_mean_over_the_classes_that_occur():
    assert tasks.miou(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])) == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_void_pixels_are_neither_scored_nor_learned():
    held_out = pixels([[0, 0, 1], [0, 3, 3]], void=3)
    logits = torch.zeros(1, 3, 2, 3)
    logits[:, 0, 0], logits[:, 2, 1] = 2.0, 2.0  # a a a over c c c
    found = tasks.score_masks(Always(logits), held_out)
    assert found["miou"] == pytest.approx((2 / 4 + 0 + 0) / 3) and found["pixel_accuracy"] == pytest.approx(2 / 4)
    ((images, masks),) = held_out.epoch(None)
    assert (masks == IGNORED).sum() == 2
    assert found["loss"] == pytest.approx(train.task_loss(Always(logits), images, masks, 0.0).item())
    logits[:, :, 1, 1:] = torch.randn(3, 2)
    assert tasks.score_masks(Always(logits), held_out) == found


def test_average_precision_of_one_object_found_out_of_two():
    boxes = torch.tensor([[0.0, 0, 20, 20], [30, 30, 50, 50]])
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    zeros = torch.zeros(2, dtype=torch.int64)
    samples = Samples("toy", "val", images, None, ("a",), "0" * 64, boxes=boxes, box_labels=zeros, box_images=zeros)
    held_out = DetectionBatches(samples, 1, mean=(0.0,) * 3, std=(1.0,) * 3)
    found = {"boxes": boxes[:1], "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}
    scores = tasks.score_boxes(Always([found]), held_out)
    assert scores == pytest.approx({"map50": 51 / 101, "map": 51 / 101})  # precision 1 at the recalls 0, 0.01 ... 0.5
    loose = found | {"boxes": boxes[:1] + torch.tensor([0.0, 0, 0, 10])}  # 2/3 of the union is shared
    assert tasks.score_boxes(Always([loose]), held_out) == pytest.approx({"map50": 51 / 101, "map": 0.4 * 51 / 101})


# ------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(("name", "host"), [("scenes_masks", hosts.segmenter), ("scenes_boxes", hosts.detector)])
def test_the_loss_falls_on_pixels_and_on_boxes(name, host):
    torch.manual_seed(0)
    schedule = train.Schedule(4, lr=0.02)
    curve = train.fit(host("resnet18", 11, width=8), batches(name), schedule, seed=0, hardware=CPU)
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


@pytest.fixture
def few(monkeypatch):
    """Runs on a handful of scenes."""
    monkeypatch.setattr(recipes, "data", recipes.data.__wrapped__)
    monkeypatch.setattr(recipes, "load", lambda *args, **options: load(*args, **options, n=4))


@pytest.mark.parametrize(("name", "task"), [("scenes_masks", SEGMENTATION), ("scenes_boxes", DETECTION)])
def test_a_sampled_network_trains_on_pixels_and_on_boxes_and_its_record_has_the_tasks_scores(few, name, task):
    recipe = Recipe("resnet18", name, epochs=1, batch_size=2, lr=0.01, width=8, size_px=64)
    config = sampling.Config(gamma=1.0)
    record, net = runs.fit("sampling", config, recipe, profile="smoke", seed=0, checkpoints=None, hardware=CPU)
    found, metric = record.metrics, task.metric
    assert {metric, "density", "loss"} <= record.curve[-1].keys() and 0 <= found[metric] <= 1
    assert len(found[f"{metric}_by_seed"]) == 3 and found[f"{metric}_by_seed"][0] == found[metric]
    assert found[f"{metric}_mean"] == pytest.approx(sum(found[f"{metric}_by_seed"]) / 3)
    part, size = task.counted(net, (64, 64))
    assert found["macs"] == cost.count(part, cost.example(size)).macs > found["macs_expected"]
    assert len(found["density_by_mask"]) == 16 and 0.5 < found["density"] < 1
    assert next(iter(samplers(net).values())).tau < 1


def test_the_images_of_a_recipe_keep_their_aspect(monkeypatch):
    asked, some = [], load("scenes_masks", "val", n=4)
    monkeypatch.setattr(recipes, "load", lambda *args, **options: asked.append(options) or some)
    recipes.data.__wrapped__("camvid", 2, 3, 180, None)
    assert asked == [{"size_px": (180, 240)}] * 2


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"arch": "vgg11"}, "dataset scenes_masks is for segmentation, which arch vgg11 .* allowed: resnet101"),
        ({"dataset": "cifar10", "held_out_images": 13}, "held_out_images is 13; it is a multiple of the 10 classes"),
        ({"held_out_images": 10}, "held_out_images is 10, but dataset scenes_masks is for segmentation"),
        ({"test_sizes_px": (32,)}, r"test_sizes_px is \[32\], but dataset scenes_masks is for segmentation"),
        ({"dataset": "camvit"}, "dataset 'camvit' is unknown; allowed: camvid"),
    ],
)
def test_a_recipe_that_no_network_fits_is_refused_in_a_line(settings, words):
    with pytest.raises(InputError, match=f"^{words}.*$"):
        Recipe(**{"arch": "resnet18", "dataset": "scenes_masks", "epochs": 1} | settings)


def test_a_method_for_classification_alone_refuses_other_data_before_any_work():
    recipe = Recipe("resnet18", "camvid", epochs=1)
    words = "^dataset camvid is for segmentation, which method octconv does not train for; allowed: .* classification$"
    with pytest.raises(InputError, match=words):
        runs.fit("octconv", octconv.Config(), recipe, profile="smoke", seed=0)


def test_more_training_images_than_there_are_is_refused(few):
    with pytest.raises(InputError, match="train_images is 9; the data set has 4"):
        recipes.data("scenes_boxes", 4, 9, 64, None)


def test_a_detector_is_not_trained_with_its_boxes_rounded():
    recipe = recipes.Recipe("resnet18", "scenes_boxes", epochs=1, width=8)
    with pytest.raises(InputError, match="precision is 'bf16-mixed'; allowed for detection: 32-true"):
        hardware = train.Hardware("cpu", precision="bf16-mixed")
        runs.fit("sampling", sampling.Config(), recipe, profile="smoke", seed=0, hardware=hardware)
