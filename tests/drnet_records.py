"""Records of dynamic resolution as tests need them: three sizes that cost 100, 60 and 20, and a predictor of 4."""

from dynlib.book.records import Record

MACS, PREDICTOR = [100.0, 60.0, 20.0], 4.0


def record(seed=0, kind="training", config=None, **metrics):
    return Record("drnet", kind, "public", config or {}, "", {"test_images": 10_000}, seed, metrics, [], {}, 1.0)


def dynamic(seed=0, top1=0.83, shares=(0.25, 0.25, 0.5), full=0.84, blind=0.81, **more):
    macs = sum(s * c for s, c in zip(shares, MACS, strict=True))
    metrics = {"top1": top1, "shares": list(shares), "sides_px": [128, 96, 64], "macs_by_side": MACS}
    metrics |= {"macs_predictor": PREDICTOR, "macs_expected": macs + PREDICTOR, "fixed_top1": [full, 0.82, 0.70]}
    metrics |= {
        "permuted_top1": blind,
        "permuted_std": 0.01,
        "uniform_top1": [0.7, 0.8],
        "uniform_macs": 60.0,
        "entropy": 0.5,
    }
    metrics |= {"sampled_top1": [0.78, 0.80], "sampled_macs": 40.0}
    metrics |= {"sufficient_top1": 0.9, "sufficient_macs": 30.0, "sufficient_shares": [0.05, 0.1, 0.85]}
    metrics |= {"right_nowhere": 0.1, "cascade_macs": [30.0, 70.0], "cascade_top1": [0.75, 0.83], "gate_macs": 50.0}
    return record(seed, config={"method": {"alpha": 0.5, "eta": 0.2}}, **metrics | more)


def plain(seed=0, top1=0.81, size_px=128, macs=100.0):
    return record(seed, top1=top1, macs=macs, size_px=size_px)
