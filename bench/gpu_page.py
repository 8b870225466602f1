"""The page of what `bench/gpu.py` found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["page"]


def page(found: Mapping[str, Any]) -> str:
    """Write it in Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)
    head = (
        "A self-test on a CPU: it shows that the path runs, and its figures mean nothing."
        if found["self_test"]
        else f"Measured {found['at']} on one {found['device']} by `python bench/gpu.py`."
    )
    parts = [
        "# Inference on a GPU",
        f"{head} {versions}. {found['candidates']:,} candidates of one user, all ways in turns, from numbers "
        "in the host's memory to scores in the host's memory; TF32 off; random weights. *Difference* is the "
        "largest of a probability to torch on the CPU, in float32 "
        f"{found['tolerance']:.0e} at most.",
        _table(
            ["model", "way", "p50 ms", "p99 ms", "difference", "p99 target"],
            [row for name, result in found["models"].items() for row in _rows(name, result, found)],
        ),
        "## Fused kernels",
        f"Beside their plain twins, each replayed as a CUDA graph. Copying in memory reaches "
        f"{found['copy_bytes_per_s'] / 1e9:,.0f} GB/s; *share* is the time that this would take for what "
        "the embedding stage moves, each number once, over the time it took. No exported graph holds one of "
        "these kernels.",
        _table(
            ["kernel", "way", "us", "share of copying", "difference to the twin"],
            [row for name, result in found["kernels"].items() for row in _kernel_rows(name, result)],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _rows(name: str, result: Mapping[str, Any], found: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for way, row in result["ways"].items():
        near = row["difference"] <= found["tolerance"]
        difference = f"{row['difference']:.1e}" + (
            "" if near or way.endswith(("fp16", "bf16")) else ", too far"
        )
        target = ""
        if way.startswith("onnxruntime, CUDA graph") and not found["self_test"]:
            target = f"{result['target_ms']:g}: {'met' if row['p99_ms'] <= result['target_ms'] else 'missed'}"
        rows.append([name, way, f"{row['p50_ms']:.3f}", f"{row['p99_ms']:.3f}", difference, target])
    return rows + [
        [name, way, "", "", f"not available: {_plain(why)}", ""] for way, why in result["absent"].items()
    ]


def _kernel_rows(name: str, result: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for way, us in result["us"].items():
        share = f"{result['share'][way]:.0%}" if "share" in result else ""
        difference = f"{result['difference']:.1e}" if way == "fused" else ""
        rows.append([name, way, f"{us:.1f}", share, difference])
    for key, way in (("absent", "fused"), ("not compiled", "twin, compiled")):
        if key in result:
            rows.append([name, way, "", "", f"not available: {_plain(result[key])}"])
    return rows


def _plain(text: str) -> str:
    return text.replace("|", "/")[:160]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
