"""The timing protocol, on a clock that tests can turn; and one measurement in a process of its own."""

import json
import os
import shutil
import subprocess

import pytest
import torch
from torch import nn

from dynlib import latency, variants
from dynlib.errors import InputError

X = torch.ones(2, 3, 8, 8)


class Clock:
    """Nanoseconds that pass only while a network runs."""

    def __init__(self, monkeypatch):
        self.now, self.log = 0, []
        monkeypatch.setattr(latency, "perf_counter_ns", lambda: self.now)

    def net(self, name, *ms):
        """A network whose successive calls take these times; the last one lasts for ever."""
        times = list(ms)

        def run(x):
            self.log.append(name)
            self.now += int(1e6 * (times.pop(0) if len(times) > 1 else times[0]))

        return run


def test_speedup_is_that_of_the_fastest_variant_of_either_side(monkeypatch):
    clock = Clock(monkeypatch)
    static = {"slow": clock.net("slow", 90), "fast": clock.net("fast", 30)}
    result = latency.compare(
        static, {"a": clock.net("late", 40), "b": clock.net("method", 20)}, X, repeats=4, min_seconds=0.001
    )
    assert result == latency.Latency(
        batch=2,
        threads=torch.get_num_threads(),
        dtype="float32",
        static_ms=30,
        method_ms=20,
        speedup=1.5,
        speedup_iqr=(1.5, 1.5),
        static_variant="fast",
        variants_ms={"slow": 90, "fast": 30},
        repeats=4,
        engine="b",
        engines_ms={"a": 40, "b": 20},
    )


def test_ratios_are_paired_by_round(monkeypatch):
    """A machine that slows down threefold in one round slows both sides: the ratio must not see it."""
    clock = Clock(monkeypatch)
    warm = [40, 40, 40]
    static, method = clock.net("s", *warm, 40, 120, 40, 80, 40), clock.net("m", *warm, 20, 60, 20, 20, 20)
    result = latency.compare({"only": static}, {"m": method}, X, repeats=5, min_seconds=0.001)
    assert (result.speedup, result.speedup_iqr) == (2, (2, 2))
    assert (result.static_ms, result.method_ms) == (40, 20)


def test_quartiles_are_those_of_the_ratios(monkeypatch):
    clock = Clock(monkeypatch)
    static = clock.net("s", 10, 10, 10, 10, 20, 30, 40, 50)
    result = latency.compare({"only": static}, {"m": clock.net("m", 10)}, X, repeats=5, min_seconds=0.001)
    assert (result.speedup, result.speedup_iqr) == (3, (2, 4))


def test_what_has_lost_after_the_warm_up_is_timed_in_few_rounds_and_never_the_best(monkeypatch):
    clock = Clock(monkeypatch)
    static = {"lost": clock.net("l", 90, 90, 90, 1), "best": clock.net("b", 50)}
    found = latency.compare(static, {"m": clock.net("m", 50)}, X, repeats=9, min_seconds=0.001)
    assert clock.log.count("l") == 3 + latency.FEW and clock.log.count("b") == 3 + 9
    assert found.static_variant == "best" and found.variants_ms == {"lost": 1, "best": 50} and found.speedup == 1


def test_each_round_times_everything_and_starts_with_another_one(monkeypatch):
    clock = Clock(monkeypatch)
    nets = {name: clock.net(name, 50) for name in "ab"}
    latency.compare(nets, {"m": clock.net("m", 50)}, X, repeats=4, min_seconds=0.001)
    assert "".join(clock.log) == "aaabbbmmm" + "abm" + "bma" + "mab" + "abm"


def test_a_block_of_a_short_network_is_many_calls_after_one_untimed(monkeypatch):
    clock = Clock(monkeypatch)
    short = clock.net("m", *[2] * 50, 99, *[2] * 50, 99, *[2] * 50)
    result = latency.compare({"long": clock.net("s", 100)}, {"m": short}, X, repeats=2, min_seconds=0.1)
    assert clock.log.count("s") == 3 + 2
    assert clock.log.count("m") == 50 + 2 * (1 + 50)
    assert result.speedup == 50  # the two slow calls stood before the blocks


def test_a_block_of_a_method_with_a_cycle_holds_whole_cycles(monkeypatch):
    """Of decisions that take 1, 1 and 7 ms in turn a block sees the mean, whatever call it starts with."""
    clock = Clock(monkeypatch)
    method = clock.net("m", *[1, 1, 7] * 100)
    result = latency.compare({"only": clock.net("s", 6)}, {"m": method}, X, repeats=2, min_seconds=0.004, cycle=3)
    assert (result.method_ms, result.speedup) == (3, 2)


def test_gradients_are_off_while_timing():
    seen = set()
    nets = [lambda x: seen.add(torch.is_grad_enabled()) for _ in range(2)]
    latency.compare({"s": nets[0]}, {"m": nets[1]}, X, repeats=2, min_seconds=1e-6)
    assert seen == {False}


@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler here")
def test_static_variants_agree_with_the_network_and_leave_it_alone():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))
    forms, left_out = variants.variants_of(net, X)
    assert list(forms) == ["eager", "channels_last", "compiled", "onnxruntime", "openvino"] and not left_out
    assert net.training
    with torch.no_grad():
        expected = net.eval()(X)
        for run in forms.values():
            torch.testing.assert_close(run(X), expected)
        for parameter in forms["compiled"]._orig_mod.parameters():
            parameter.zero_()
        torch.testing.assert_close(forms["compiled"](X), expected)  # frozen: the weights are constants by now


def test_a_variant_that_fails_or_yields_other_numbers_is_left_out_with_a_word(monkeypatch):
    def broken(net, example):
        raise ZeroDivisionError("no such thing\nas a compiler")

    monkeypatch.setattr(variants, "_compiled", broken)
    monkeypatch.setattr(variants, "_channels_last", lambda net, example: lambda x: torch.zeros(2, 4))
    monkeypatch.setattr(variants, "ENGINES", ())
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    forms, left_out = variants.variants_of(net, X)
    assert list(forms) == ["eager"]
    assert left_out == {
        "channels_last": "its outputs differ by 1e+00 of the largest value",
        "compiled": "ZeroDivisionError: no such thing",
    }


def pair(batch, width):
    """A factory as a chapter would give it."""
    print("a library that talks")
    if width < 1:
        raise InputError(f"width is {width}; at least 1")
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1" and os.environ["OMP_NUM_THREADS"] == "1"
    assert torch.get_num_threads() == 1
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU()).eval()
    return net, {"same": net}, torch.randn(batch, 3, 16, 16)


PAIR = "tests.test_latency:pair"


def test_a_process_of_its_own_measures_and_says_that_it_had_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/compiler")
    result = latency.in_own_process(PAIR, {"width": 4}, batch=2, repeats=3, min_seconds=0.001)
    assert (result.batch, result.threads, result.dtype, result.repeats) == (2, 1, "float32", 3)
    assert list(result.variants_ms) == ["eager", "channels_last", "onnxruntime", "openvino"]
    assert list(result.left_out) == ["compiled"] and "compiler" in result.left_out["compiled"]
    assert result.static_ms == min(result.variants_ms.values()) == result.variants_ms[result.static_variant] > 0
    assert result.speedup_iqr[0] <= result.speedup <= result.speedup_iqr[1]


def child_ends_with(monkeypatch, status, stdout="", stderr=""):
    monkeypatch.setattr("subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], status, stdout, stderr))


def test_what_the_factory_refuses_is_an_input_error_here(monkeypatch):
    spec = {
        "factory": PAIR,
        "arguments": {"width": 0},
        "batch": 1,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
    }
    answer = latency._child(spec)
    child_ends_with(monkeypatch, 0, json.dumps(answer))
    with pytest.raises(InputError, match=r"^width is 0; at least 1$"):
        latency.in_own_process(PAIR, {"width": 0})


def test_a_failing_process_is_one_clear_message_after_its_traceback(monkeypatch, capsys):
    child_ends_with(monkeypatch, 1, "", "Traceback (most recent call last):\n ...\nKeyError: 'no such thing'\n")
    with pytest.raises(RuntimeError, match=r"^measuring .*:pair ended with exit status 1: KeyError: 'no such thing'$"):
        latency.in_own_process(PAIR, {"width": 9})
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"threads": 10**6}, "threads is 1000000; this process may use .* cores: 1 to"),
        ({"batch": 0}, "batch is 0"),
        ({"repeats": 1}, "repeats is 1"),
        ({"min_seconds": 0}, "min_seconds is 0"),
        ({"min_seconds": float("nan")}, "min_seconds is nan"),
        ({"factory": "no_function"}, "factory is 'no_function'"),
        ({"factory": "module:"}, "factory is 'module:'"),
    ],
)
def test_wrong_values_stop_before_any_process_starts(wrong, says, monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a process was started"))
    with pytest.raises(InputError, match=says):
        latency.in_own_process(**{"factory": "module:function", "arguments": {}} | wrong)
