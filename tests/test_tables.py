"""Tables: claimed and measured side by side, at printed digits, nothing invented."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from dynlib.book.legacy import tables
from dynlib.book.legacy.tables import (
    DASH,
    claims,
    compare,
    latency_table,
    measured,
    points,
    provenance,
    show,
    training_table,
)
from dynlib.book.records import Record, config_hash
from dynlib.errors import InputError
from dynlib.paths import CLAIMS

ENVIRONMENT = {"device": "Some CPU", "threads": 2, "commit": "abc", "date": "2026-01-02T03:04:05Z"}
HALF = "ResNet-50, alpha 0.5"


def training(alpha=0.5, seed=0, top1=0.9, profile="public", epochs=30, **environment) -> Record:
    config = {"method": {"alpha": alpha}, "recipe": {"arch": "resnet20", "epochs": epochs}}
    return Record(
        key="octconv",
        kind="training",
        profile=profile,
        config=config,
        config_hash=config_hash(config),
        dataset={"name": "cifar10", "train_images": 50_000, "test_images": 10_000},
        seed=seed,
        metrics={"top1": top1, "macs": 28_560_000, "params": 272_474},
        curve=[],
        environment=ENVIRONMENT | environment,
        wall_s=1.0,
    )


def latency(alpha=0.5, speedup=1.55) -> Record:
    config = {"arch": "resnet50", "method": {"alpha": alpha}, "batch": 1, "threads": 1}
    metrics = {"dtype": "float32", "static_ms": 75.04, "method_ms": 48.4, "speedup": speedup, "speedup_iqr": [1.5, 1.6]}
    metrics |= {"macs_ratio": 1.727, "efficiency": 0.897, "static_variant": "compiled", "variants_ms": {}}
    return Record("octconv", "latency", "paper", config, config_hash(config), {}, 0, metrics, [], ENVIRONMENT, 1.0)


def name(record: Record) -> str:
    return f"ResNet-50, alpha {record.config['method']['alpha']:g}"


def line(frame: pd.DataFrame, row: str, quantity: str | None = None) -> dict:
    """The one line of a table under this key."""
    kept = frame[(frame.row == row) & (True if quantity is None else frame.get("quantity") == quantity)]
    assert len(kept) == 1
    return kept.iloc[0].to_dict()


def claim(row, metric, value, unit, confidence="verified", note=""):
    return dict(zip(tables.COLUMNS, ["t", row, metric, value, unit, confidence, "T", note], strict=True))


# --- reading claims


def test_claims_keep_their_printed_digits_and_come_by_table():
    frame = claims("octconv", "table2")
    assert set(frame.table) == {"table2"}
    assert frame[(frame.row == "ResNet-50") & (frame.metric == "top1")].value.tolist() == ["77.0"]


def test_every_committed_claims_file_can_be_read():
    for path in CLAIMS.glob("*.csv"):
        assert len(claims(path.stem)) > 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "has the columns"),
        (lambda text: text.replace("metric", "metrik", 1), "has the columns"),
        (lambda text: text.replace(",100,%,", ",100,", 1), "is not a claim"),
        (lambda text: text.replace(",100,%,", ",hundred,%,", 1), "is not a claim"),
        (lambda text: text.replace(",100,%,", ",100,parsec,", 1), "parsec"),
        (lambda text: text.replace(",100,%,", ",,%,", 1), "is not a claim"),
        (lambda text: text[:-20] + '"', "claim"),
    ],
)
def test_a_damaged_claims_file_is_refused_in_one_line_that_names_it(tmp_path, damage, message):
    path = tmp_path / "octconv.csv"
    shutil.copy(CLAIMS / "octconv.csv", path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=message) as caught:
        claims("octconv", folder=tmp_path)
    assert "octconv.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "octconv.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        claims("octconv", folder=tmp_path)


@pytest.mark.parametrize("asked", [("nothing",), ("octconv", "table99")])
def test_an_unknown_paper_or_table_is_refused_with_what_there_is(asked):
    with pytest.raises(InputError, match=r"allowed: .*(octconv|table2)"):
        claims(*asked)


# --- claimed beside measured


def test_integer_macs_are_shown_in_the_unit_and_digits_of_the_claim():
    ours = measured({HALF: {"macs": 2_366_812_160}}, "counted")
    found = line(compare(claims("octconv", "table2"), ours), HALF, "MACs, G")
    assert (found["claimed"], found["measured"], found["difference"]) == ("2.4", "2.4", "0.0")
    digitised = line(compare(claims("octconv", "fig4_preprint"), ours), HALF, "MACs, G")
    assert (digitised["claimed"], digitised["measured"], digitised["difference"]) == ("2.382", "2.367", "−0.015")
    row = "0.75 MobileNet v1, alpha 0.375"
    small = compare(claims("octconv", "table5"), measured({row: {"macs": 211_380_000, "params": 2_600_000}}, "counted"))
    assert line(small, row, "MACs, M")["measured"] == "211"
    assert line(small, row, "parameters, M")["difference"] == "0.0"


def test_fractions_become_percent_and_halves_round_up_as_in_print():
    ratio = {f"one layer, alpha {a:g}": {"memory_ratio": 1 - 0.75 * a} for a in (0.125, 0.5, 0.875)}
    frame = compare(claims("octconv", "table1"), measured(ratio, "counted", "closed form"))
    assert line(frame, "one layer, alpha 0.5", "memory ratio, %")["measured"] == "63"  # 62.5
    assert line(frame, "one layer, alpha 0.125", "memory ratio, %")["difference"] == "0"
    assert line(frame, "one layer, alpha 0.875", "memory ratio, %")["difference"] == "−1"


def test_a_slip_in_print_is_marked_and_footnoted_not_corrected():
    frame = compare(claims("octconv", "table1"), measured({}, "counted"))
    assert line(frame, "one layer, alpha 0.875", "memory ratio, %")["claimed"] == "35†"
    assert [note for note in frame.attrs["notes"] if note.startswith("†") and "34.375" in note]


def test_a_claim_from_memory_says_so():
    frame = compare(pd.DataFrame([claim("a", "top1", "70.0", "%", "recalled")]), measured({}, "counted"))
    assert frame.claimed.tolist() == ["70.0‡"] and any(note.startswith("‡") for note in frame.attrs["notes"])


def test_what_nobody_measured_is_a_dash_and_the_command_is_told_once():
    frame = compare(
        claims("octconv", "table2"), measured({HALF: {"macs": 2_366_812_160}}, "counted"), command="make it"
    )
    empty = frame[frame.row != HALF]
    assert (empty[["measured", "difference", "source"]] == DASH).all(axis=None)
    assert len(empty) > 1 and sum("`make it`" in note for note in frame.attrs["notes"]) == 1


def test_the_command_is_not_told_where_nothing_is_missing():
    table = pd.DataFrame([claim("a", "macs", "2.4", "GMAC")])
    frame = compare(table, measured({"a": {"macs": 2_400_000_000}}, "counted"), command="make it")
    assert frame.attrs["notes"] == ()


def test_a_bound_in_print_stays_as_printed_and_has_no_difference():
    row = "NASNet-A (N=6, F=168)"
    frame = compare(claims("octconv", "table7"), measured({row: {"train_memory": 30_000}}, "paper"))
    found = line(frame, row, "train memory, MB")
    assert (found["claimed"], found["measured"], found["difference"]) == (">32480", "30000", DASH)


def test_a_row_of_ours_that_the_paper_lacks_is_shown_with_a_dash_as_claimed():
    frame = compare(claims("octconv", "table2"), measured({"ResNet-50, alpha 0": {"macs": 4_089_184_256}}, "counted"))
    found = line(frame, "ResNet-50, alpha 0", "MACs, G")
    assert (found["claimed"], found["measured"], found["difference"]) == (DASH, "4.1", DASH)


def test_claimed_and_measured_numbers_never_meet_in_one_column():
    ours = measured({HALF: {"top1": 0.5, "macs": 7}}, "paper")
    frame = compare(claims("octconv", "table2"), ours)
    published = set(claims("octconv", "table2").value)
    assert set(frame.claimed) <= published
    assert set(frame.measured) == {"50.0", "0.0", DASH}


def test_accuracy_on_other_data_and_time_on_another_machine_have_no_difference():
    public = compare(claims("octconv", "table2"), measured({HALF: {"top1": 0.91}}, "public"))
    assert line(public, HALF, "top-1, %")["difference"] == DASH
    paper = compare(claims("octconv", "table2"), measured({HALF: {"top1": 0.771, "cpu_time_tvm": 48.0}}, "paper"))
    assert line(paper, HALF, "top-1, %")["difference"] == "−0.2"
    assert line(paper, HALF, "CPU time TVM, ms")["difference"] == DASH
    for frame in (public, paper):
        assert sum("same scale" in note for note in frame.attrs["notes"]) == 1


def test_seeds_show_as_mean_and_sample_deviation():
    frame = compare(claims("octconv", "table2"), measured({HALF: {"top1": [0.77, 0.78, 0.79]}}, "paper"))
    assert line(frame, HALF, "top-1, %")["measured"] == "78.0 ± 1.0"


def test_a_baseline_adds_the_gain_on_each_side_over_its_own():
    ours = measured({"ResNet-50": {"top1": 0.90}, HALF: {"top1": 0.905}}, "public")
    found = line(compare(claims("octconv", "table2"), ours, baseline="ResNet-50"), HALF, "top-1, %")
    assert (found["claimed gain"], found["measured gain"], found["difference"]) == ("+0.3", "+0.5", DASH)


def test_smoke_results_cannot_stand_beside_a_claim():
    with pytest.raises(InputError, match="smoke"):
        measured({HALF: {"top1": 0.3}}, "smoke")


@pytest.mark.parametrize(
    ("ours", "options", "message"),
    [
        ([measured({HALF: {"speed": 1.0}}, "counted")], {}, "speed"),
        ([measured({HALF: {"top1": 0.9}}, "public"), measured({"ResNet-50": {"top1": 0.7}}, "paper")], {}, "profiles"),
        ([measured({HALF: {"top1": 0.9}}, "public")] * 2, {}, "twice"),
        ([measured({}, "counted")], {"baseline": "VGG"}, "VGG"),
    ],
)
def test_a_comparison_that_would_mislead_is_refused(ours, options, message):
    with pytest.raises(InputError, match=message) as caught:
        compare(claims("octconv", "table2"), pd.concat(ours), **options)
    assert "\n" not in str(caught.value)


# --- records


def test_a_training_row_is_the_mean_over_its_seeds_and_says_how_many():
    runs = [training(0.5, s, t) for s, t in enumerate((0.90, 0.91, 0.92))] + [training(0.25, 0, 0.925)]
    frame = training_table(runs, name)
    several, one = line(frame, HALF), line(frame, "ResNet-50, alpha 0.25")
    assert (several["top-1, %"], several["seeds"]) == ("91.00 ± 1.00", "n = 3")
    assert (one["top-1, %"], one["seeds"]) == ("92.50", "n = 1")
    assert (one["MACs, M"], one["parameters, M"], one["data set"], one["epochs"]) == ("28.6", "0.272", "cifar10", "30")
    assert one["hardware"] == "Some CPU"


def test_a_table_of_detectors_says_what_their_macs_are_of():
    found = replace(training(), dataset={"name": "bccd"}, metrics=training().metrics | {"map50": 0.5})
    frame = training_table([found], name, ("map50",))
    assert line(frame, HALF)["mAP50, %"] == "50.00"
    assert frame.attrs["notes"] == ("MACs and parameters of a detector are those of its backbone and feature pyramid.",)


@pytest.mark.parametrize(
    ("runs", "metrics", "message"),
    [
        ([training(), training(0.25, profile="smoke")], ("top1",), "public, smoke"),
        ([training(epochs=30), training(epochs=60)], ("top1",), "different configurations"),
        (
            [training(), replace(training(seed=1), dataset={"name": "scenes"})],
            ("top1",),
            "different configurations or data",
        ),
        ([training()], ("top9",), "top9"),
    ],
)
def test_a_training_table_that_would_mix_unlike_things_is_refused(runs, metrics, message):
    with pytest.raises(InputError, match=message):
        training_table(runs, name, metrics)


def test_latency_stands_beside_the_claimed_ratio_with_its_quartiles():
    frame = latency_table(
        [latency()],
        claims("octconv", "table2"),
        name,
        metric="cpu_time_tvm",
        vanilla="ResNet-50",
        command="make latency",
    )
    ours = line(frame, HALF)
    assert (ours["claimed, ms"], ours["claimed speed-up"]) == ("74", "1.55")  # 115 / 74
    assert [ours[column] for column in tables.OURS] == ["75.0", "48.4", "1.55", "1.50 to 1.60", "1.73", "0.90"]
    assert {line(frame, "ResNet-50, alpha 0.75")[column] for column in tables.OURS} == {DASH}
    assert {line(frame, "ResNet-50")[column] for column in tables.OURS} == {""}
    notes = " ".join(frame.attrs["notes"])
    assert "Skylake" in notes and "Some CPU" in notes and notes.count("make latency") == 1


def test_the_vanilla_row_alone_is_no_gap_that_a_command_would_fill():
    table = claims("octconv", "table2")
    table = table[table.row.isin(["ResNet-50", HALF])]
    frame = latency_table([latency()], table, name, metric="cpu_time_tvm", vanilla="ResNet-50", command="make latency")
    assert not any("make latency" in note for note in frame.attrs["notes"])


def test_times_alone_are_the_record_and_a_dash_with_the_command_where_there_is_none():
    table = tables.timings({"half": latency(), "none": None}, "make latency")
    assert table.iloc[0].tolist() == ["half", "75.0", "48.4", "1.55", "1.50 to 1.60", "1.73", "0.90"]
    assert set(table.iloc[1, 1:]) == {DASH} and "`make latency` makes it" in table.attrs["notes"][1]
    assert not any(
        "make latency" in note for note in tables.timings({"half": latency()}, "make latency").attrs["notes"]
    )


def test_a_wide_table_has_the_cells_of_the_long_one_and_no_word_on_differences():
    claimed = pd.DataFrame([claim("a", "macs", "4.1", "GMAC"), claim("a", "top1", "76.1", "%")])
    long = compare(claimed, measured({"a": {"macs": 4.089e9, "top1": [0.5, 0.6]}, "b": {"top1": 0.7}}, "public"))
    table = tables.wide(long)
    heads = ["row", "MACs, G: claimed", "MACs, G: ours", "top-1, %: claimed", "top-1, %: ours"]
    assert table.columns.tolist() == heads
    assert table.values.tolist() == [["a", "4.1", "4.1", "76.1", "55.0 ± 7.1"], ["b", DASH, DASH, DASH, "70.0"]]
    assert not any("difference" in note for note in table.attrs["notes"]) and len(long.attrs["notes"]) == 2


def test_values_over_seeds_are_shown_in_the_unit_with_their_spread():
    assert tables.spread([0.5, 0.6], "%") == "55.00 ± 7.07" and tables.spread([], "%") == DASH
    assert tables.spread([0.01], "points", signed=True) == "+1.00"
    assert tables.spread([-0.01], "points", 1, True) == "−1.0" and tables.spread([2.5e6], "MMAC", 1) == "2.5"


def test_two_latency_records_of_one_row_are_refused():
    with pytest.raises(InputError, match="2 latency records"):
        latency_table(
            [latency(), latency()], claims("octconv", "table2"), name, metric="cpu_time_tvm", vanilla="ResNet-50"
        )


def test_a_vanilla_row_without_a_claimed_time_is_refused():
    with pytest.raises(InputError, match="no claimed cpu_time_tvm"):
        latency_table([], claims("octconv", "table3"), name, metric="cpu_time_tvm", vanilla="ResNet-50")


def test_provenance_says_in_one_line_where_numbers_come_from():
    runs = [training(seed=0), training(seed=1, date="2026-02-03T00:00:00Z", device="Some GPU", precision="bf16-mixed")]
    assert provenance(runs) == (
        "cifar10, 50,000 training and 10,000 test images; 30 epochs; seeds 0, 1; Some CPU; Some GPU; 2 threads; "
        "bf16-mixed; commit abc; 2026-01-02 to 2026-02-03"
    )
    assert provenance([latency()]) == "batch 1, float32; Some CPU; 2 threads; commit abc; 2026-01-02"
    assert provenance([]) == "no record"


def test_points_are_in_kept_units_on_both_sides():
    ours = measured({HALF: {"macs": 2_366_812_160, "top1": [0.77, 0.78]}}, "paper")
    theirs = points(claims("octconv", "table2"))
    for frame in (theirs, points(ours)):
        row = line(frame, HALF)
        assert (row["series"], row["knob"]) == ("ResNet-50", "alpha 0.5")
        assert row["macs"] == pytest.approx(2.4e9, rel=0.02) and row["top1"] == pytest.approx(0.774, abs=0.002)
    assert "" in set(theirs.knob) and len(theirs) == 5


# --- display


class Page(HTMLParser):
    """Counts tags and keeps the text of the caption and the scopes of header cells."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.scopes, self.inside, self.text = [], [], [], {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside.append(tag)
        if tag == "th":
            self.scopes.append(dict(attrs)["scope"])

    def handle_endtag(self, tag):
        while self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if self.inside:
            self.text[self.inside[-1]] = self.text.get(self.inside[-1], "") + data


def shown():
    frame = compare(claims("octconv", "table2"), measured({HALF: {"macs": 2_366_812_160}}, "counted"), command="a <b>")
    return frame, show(frame, "Claims & ours", "One note more.")


def test_a_shown_table_has_a_caption_and_scoped_headers_and_no_index():
    frame, table = shown()
    page = Page(table._repr_html_())
    assert page.tags.count("table") == page.tags.count("caption") == 1
    assert page.text["caption"] == "Claims & ours"
    assert page.scopes == ["col"] * len(frame.columns) + ["row"] * len(frame)
    assert page.tags.count("td") == len(frame) * (len(frame.columns) - 1)
    assert page.text["code"] == "a <b>"


def test_a_shown_table_takes_every_colour_from_the_page():
    html = shown()[1]._repr_html_()
    assert not re.search(r"#[0-9a-fA-F]{3}|rgb|(?:color|background)\s*:", html)


def test_numbers_stand_right_and_words_left():
    html = shown()[1]._repr_html_()
    (cells,) = re.findall(rf">{HALF}</th>((?:(?!</tr>).)*>MACs, G<.*?)</tr>", html)
    sides = [("right" in style, text) for style, text in re.findall(r'<td style="([^"]*)">([^<]*)</td>', cells)]
    assert sides == [(False, "MACs, G"), (True, "2.4"), (True, "2.4"), (True, "0.0"), (False, "counted")]


def test_a_shown_table_reads_as_plain_text_too():
    text = repr(shown()[1])
    assert text.startswith("Claims & ours\n") and text.endswith("One note more.") and DASH in text


def test_the_frames_that_go_in_are_not_changed():
    table, ours = claims("octconv", "table2"), measured({HALF: {"top1": [0.7, 0.8]}}, "paper")
    before = table.copy(), ours.copy()
    compare(table, ours, baseline="ResNet-50")
    points(table), points(ours)
    latency_table([latency()], table, name, metric="cpu_time_tvm", vanilla="ResNet-50")
    pd.testing.assert_frame_equal(table, before[0])
    pd.testing.assert_frame_equal(ours, before[1])
