"""The measured numbers as docs/performance.md."""

from __future__ import annotations

from typing import Any

Case = dict[str, Any]
TITLES = {"cpu": "On a processor", "gpu": "On a GPU"}


def written(results: Case) -> str:
    """The whole page, from what bench.py has stored."""
    parts = ["# Performance", "", "Written by `make bench`; `benchmarks/` says how each number is measured."]
    for kind, sections in results.items():
        parts += ["", f"## {TITLES[kind]}"]
        for name, section in sections.items():
            parts += ["", *SECTIONS[name](section["rows"]), "", f"*{described(section['machine'])}*"]
    return "\n".join(parts) + "\n"


def described(machine: Case) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['date']}; {machine['device']}, {machine['threads']} threads; {versions}"


def table(heads: list[str], rows: list[list[Any]]) -> list[str]:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def start(rows: list[Case]) -> list[str]:
    cells = [[r["what"], f"{r['seconds']:.2f}", r["target"] or ""] for r in rows]
    return ["### Starting, and whole runs on the pocket network", "", *table(["", "seconds", "target"], cells)]


def evaluations(rows: list[Case]) -> list[str]:
    cells = []
    for r in rows:
        names = [f"{r['recipe']}, {r['backbone']}", r["width"]]
        if "missing" in r["float32"]:
            cells.append([*names, "its weights are not here", "", "", ""])
            continue
        full, half = r["float32"]["seconds"], r["bfloat16"]["seconds"]
        cells.append([*names, f"{full:.3f}", f"{half:.3f}", f"{half / full:.2f}", f"{r['bfloat16']['peak_mb']:.0f}"])
    heads = ["", "width", "float32, s", "bfloat16, s", "ratio", "peak MB, bfloat16"]
    text = (
        "Loss and gradient of a 4:3 picture, with the network's recommended layers; peak memory of the whole process."
    )
    return ["### One evaluation", "", text, "", *table(heads, cells)]


def growth(rows: list[Case]) -> list[str]:
    cells = []
    for r in rows:
        pixels = r["width"] ** 2 * 3 / 4
        line = [r["recipe"], f"{r['width']} x {r['width'] * 3 // 4}"]
        for way in ("whole", "tiles"):
            if way not in r:
                line += ["", ""]
                continue
            line += [f"{1e6 * r[way]['seconds'] / pixels:.3f}", f"{r[way]['own_mb']:.0f}"]
        both = "whole" in r and "tiles" in r
        line += [f"{r['tiles']['seconds'] / r['whole']['seconds']:.2f}" if both else ""]
        line += [f"{r['tiles']['own_mb'] * 2**20 / pixels:.0f}" if "tiles" in r else ""]
        cells.append(line)
    heads = ["", "size", "whole, s/MP", "MB", "tiles of 1024, s/MP", "MB", "tiles / whole, time", "tiles, bytes/pixel"]
    text = (
        "The pocket network, precision as picked; memory above what the process held before the first evaluation. "
        "A style loss takes two passes in tiles (1.5 times the work by count), a dream's loss one; halos come on top, "
        "and may cost 1.35 times. Each column should be flat within a quarter from 1024 px on."
    )
    return ["### Growth", "", text, "", *table(heads, cells)]


def limit(rows: list[Case]) -> list[str]:
    cells = [
        [
            f"{r['recipe']}, {r['backbone']}",
            r["width"],
            r["precision"],
            f"{r['operations'] / 1e9:.1f}",
            f"{r['rate'] / 1e12:.3f}",
            f"{r['ceiling'] / 1e12:.3f}",
            f"{100 * r['share']:.0f} %",
        ]
        for r in rows
    ]
    heads = ["", "width", "precision", "10^9 operations", "10^12 per s", "a matrix product's", "share"]
    return ["### How near to the machine's limit", "", *table(heads, cells)]


def gigabytes(case: Case) -> str:
    """The peak of a case's process; "-" in results of before it was measured."""
    return f"{case['process_mb'] / 1024:.2f}" if "process_mb" in case else "-"


def field(found: Case) -> list[str]:
    def beside(row: Case) -> list[str]:
        programs = [row[program] for program in ("theirs", "float32", "bfloat16")]
        theirs, *mine = (program["seconds"] for program in programs)
        ratios = [f"{s / theirs:.2f}" for s in mine]
        return [*(f"{s:.3f}" for s in (theirs, *mine)), *ratios, *map(gigabytes, programs)]

    heads = ["", "theirs, s", "float32, s", "bfloat16, s", "float32 ratio", "bfloat16 ratio"]
    heads += ["theirs, GB", "float32, GB", "bfloat16, GB"]
    cells = [[row["peer"], *beside(row)] for row in found["style"]]
    cells.append([f"{found['dream']['peer']}, one step", *beside(found["dream"])])
    w = found["wasserstein"]
    quality = []
    for row in found["quality"]:
        theirs, ours = row["theirs"], row["ours"]
        reached = f"{ours['seconds']:.1f} ({ours['steps']} steps)" if "steps" in ours else f"not reached: {ours}"
        share = f"{ours['seconds'] / theirs['elapsed']:.3f}" if "steps" in ours else ""
        quality.append(
            [row["peer"], f"{theirs['elapsed']:.1f}", theirs["evaluations"], f"{theirs['referee']:.4g}", reached, share]
        )
    share = w["seconds"] / w["peer"]
    return [
        "### Beside the field",
        "",
        f"One evaluation at {found['size']} px on VGG19 (the dream: VGG16) with random weights, the same layers and "
        "statistic. The targets: at most 0.90 of a peer in float32 and 0.55 in bfloat16, for the dream 0.45. "
        "Memory is the peak of the whole process, with Python, its libraries and the network.",
        "",
        *table(heads, cells),
        "",
        f"crowsonkb's Wasserstein-2 term alone, value and gradient at relu5_1: {w['peer']:.3f} s, ours "
        f"{w['seconds']:.3f} s ({share:.2f} of it); the values are {w['peer value']:.4f}, with 1e-4 added to the "
        f"covariances, and {w['value']:.4f}. The target is 0.20 of it. Ours is "
        "one eigendecomposition in float64, which is exact where their iteration in float32 stops early.",
        "",
        f"To the same quality at {found['quality size']} px: a peer runs its whole default schedule, and a referee, "
        "Gatys' loss with the weights of jcjohnson's program, judges its picture; ours runs with the lab's defaults "
        "until the same referee finds its picture better. The target is 0.25 of a peer's time.",
        "",
        *table(["", "theirs, s", "evaluations", "referee's loss", "ours, s", "ratio"], quality),
    ]


SECTIONS = {"start": start, "evaluations": evaluations, "growth": growth, "limit": limit, "field": field}
