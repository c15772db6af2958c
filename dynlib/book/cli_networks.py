"""Commands on one network: what a method costs on it, how fast it makes it, and its files for shipping."""

from pathlib import Path
from typing import Annotated

import typer

from dynlib import paths, settings
from dynlib.book import records
from dynlib.book.cli_options import (
    Arch,
    AsJson,
    Classes,
    Key,
    Params,
    Size,
    giga,
    print_json,
    print_table,
    words,
)


def _asked(
    key: str, param: list[str] | None, arch: str, size: str | None, classes: int | None = None
) -> tuple[object, str, int]:
    """The method's settings, the size of the image and the number of classes, those that are usual where not given."""
    from dynlib import papers

    config = settings.build(papers.method(key).Config, settings.parse(param or ()))
    px, outputs = ("32", 10) if arch.startswith("cifar_") else ("224", 1000)
    return config, px if size is None else size, classes or outputs


def cost(
    key: Key,
    arch: Arch,
    size: Size = None,
    param: Params = None,
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """Multiply-accumulates and parameters of a method on a network, for one image."""
    from dynlib.book import paperscale
    from dynlib.cost import parse_size

    config, size, classes = _asked(key, param, arch, size, classes)
    result = paperscale.cost_of(key, config, arch, parse_size(size), classes)
    if as_json:
        return print_json(result)
    expected = ()
    if "macs_expected" in result:
        ratio = f"{result['ratio_expected']:8.3f}"
        expected = (("MACs, expected", giga(result["macs_expected"])), ("ratio, as it was to expected", ratio))
    rows = [
        ("MACs", giga(result["macs"])),
        *([("  as OctConv's authors count", giga(result["authors_macs"]))] if key == "octconv" else []),
        ("  of the network as it was", giga(result["macs_static"])),
        ("ratio, as it was to MACs", f"{result['ratio']:8.3f}"),
        *expected,
        ("parameters", giga(result["params"])),
        *((f"MACs, choice {choice}", giga(macs)) for choice, macs in result.get("macs_by_choice", {}).items()),
        ("not counted", ", ".join(result["uncounted"]) or "nothing"),
    ]
    print_table(f"{key} on {arch}, {size} px, {classes} classes: {words(result['config'])}", rows)


def latency(
    key: Key,
    arch: Arch,
    size: Size = None,
    param: Params = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Images at a time.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    repeats: Annotated[int, typer.Option(max=10**6, help="Rounds; the result is their median.")] = 20,
    shares: Annotated[
        str | None, typer.Option(metavar="A,B,..", help="Share of each choice of a dynamic method, the first first.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Of the method: onnxruntime or openvino; default the fastest that is installed.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, or int8 for both sides.")] = "float32",
    octaves: Annotated[float, typer.Option(min=0, max=1, help="Share of low channels, put in before the method.")] = 0,
    record: Annotated[bool, typer.Option("--record", help="Save the measurement in data/results/KEY.")] = False,
    as_json: AsJson = False,
) -> None:
    """Milliseconds on this CPU against the fastest static variant of the same network."""
    from dynlib.book import paperscale
    from dynlib.cost import parse_size

    config, size, _ = _asked(key, param, arch, size)
    mixture = None if shares is None else tuple(settings.numbers("shares", shares))
    if record:
        paths.check_writable(paths.RESULTS / key / "record.json")
    asked = paperscale.Timing(arch, parse_size(size), batch, threads, engine, dtype, octaves, mixture)
    measured = paperscale.time_latency(key, config, asked, repeats)
    path = records.save(measured, paths.RESULTS) if record else None
    metrics, told = measured.metrics, measured.config
    if as_json:
        about = {"arch": arch, "size": told["size"], "config": told["method"], "environment": measured.environment}
        about |= {} if mixture is None else {"shares": told["shares"]}
        return print_json({"key": key, **metrics, **about})
    lower, upper = metrics["speedup_iqr"]
    others, ours = (
        ", ".join(f"{name} {time_ms:.2f}" for name, time_ms in metrics[side].items())
        for side in ("variants_ms", "engines_ms")
    )
    rows = [
        ("static", f"{metrics['static_ms']:.2f} ms", f"{metrics['static_variant']}, the fastest of {others}"),
        *(("left out", name, why) for name, why in metrics["left_out"].items()),
        ("method", f"{metrics['method_ms']:.2f} ms", f"{metrics['engine']}, the fastest of {ours}"),
        ("speed-up", f"{metrics['speedup']:.3f}", f"quartiles {lower:.3f} to {upper:.3f}"),
        ("MAC ratio", f"{metrics['macs_ratio']:.3f}", ""),
        ("efficiency", f"{metrics['efficiency']:.3f}", "speed-up by MAC ratio"),
    ]
    on = f"batch {batch}, threads {threads}{f', shares {shares}' if shares else ''}, {measured.environment['device']}"
    print_table(f"{key} on {arch}, {size} px, {on}: {words(told['method'])}", rows)
    if path:
        print(f"record: {path}")


def deploy(
    key: Key,
    arch: Arch,
    out: Annotated[Path, typer.Option(help="Folder for the ONNX files and deployed.json.")],
    size: Size = None,
    param: Params = None,
    classes: Classes = None,
    weights: Annotated[
        Path | None, typer.Option(help="A .safetensors or .pt file; without it they are random.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a network and write it as ONNX files, which run without torch: dynlib.runtime.load(DIR)."""
    from dynlib.book import paperscale
    from dynlib.cost import parse_size

    config, size, classes = _asked(key, param, arch, size, classes)
    paths.check_writable(out / "deployed.json")
    deployed = paperscale.deploy(key, config, arch, parse_size(size), classes, weights)
    deployed.save(out)
    if as_json:
        return print_json({"folder": str(out), **deployed.about, "parts": list(deployed.parts)})
    print(f"{out}: {', '.join(f'{name}.onnx' for name in deployed.parts)}, {deployed.bytes / 1e6:.1f} MB")
