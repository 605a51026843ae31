"""What is made of a benchmark's JSON: the gate on ratios, and the README's table."""

from __future__ import annotations

from pathlib import Path

BASELINE = Path(__file__).with_name("baseline.json")
# A ratio of two times in the same rounds still scatters by about this much between runs of one machine.
TOLERANCE = 0.25


def gate(results: dict, baseline: dict) -> list[str]:
    """What is worse than the baseline, one sentence each.

    Args:
        results: of `python -m benchmarks`; subjects that did not run are not compared.
        baseline: {subject: {"ratios": {name: at least}, "bounds": {name: at most}}}: ratios of times, larger
            is better, may be lower by TOLERANCE; bounds are of figures that do not depend on the machine's
            speed.
    """
    worse = []
    for subject, limits in baseline.items():
        if subject not in results:
            continue
        found = results[subject]
        for name, expected in limits.get("ratios", {}).items():
            value = found.get("ratios", {}).get(name)
            if value is None:
                worse.append(f"{subject}: {name} was not measured")
            elif value < (1 - TOLERANCE) * expected:
                worse.append(f"{subject}: {name} is {value}, was {expected}")
        for name, most in limits.get("bounds", {}).items():
            if not found.get(name, float("inf")) <= most:
                worse.append(f"{subject}: {name} is {found.get(name)}, at most {most} is allowed")
    return worse


def table(results: dict) -> str:
    """Markdown: milliseconds a picture of ours and of the peers, and how many times as long the peers
    take.
    """
    machine, render = results["machine"], results["render"]
    lines = [
        f"Milliseconds a picture, forward / forward with gradients to vertices and colours; median of "
        f"interleaved calls. {machine['processor']}, {machine['cores']} cores, commit {machine['commit']}.",
        "",
        "| | ours | ours, 2 x 2 samples | " + " | ".join(_peers(render)) + " |",
        "|---|---|---|" + "---|" * len(_peers(render)),
    ]
    for name, times in render["times"].items():
        fine = times.get("2x2 samples forward+backward", {}).get("median_ms")
        cells = [_pair(times, ""), f"- / {fine:.1f}" if fine is not None else ""]
        cells += [_pair(times, f"{peer} ") for peer in _peers(render)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append(
        f"| plain JAX, 22k batch 1 | {_pair(render['reference'], '')} |" + " |" * (1 + len(_peers(render)))
    )
    lines += ["", "Times as long as ours, median over rounds: " + "; ".join(
        f"{name} {value}" for name, value in render["ratios"].items()
    ) + "."]  # fmt: skip
    if "gradients" in results:
        found = results["gradients"]
        lines += [
            "",
            f"Derivatives of a picture loss against the supersampled loss, largest error on three heads: "
            f"shifts {100 * found['largest_shift']:.1f}%, rotations, scale and expressions "
            f"{100 * found['largest_other']:.1f}%.",
        ]
    if "energy" in results:
        both = results["energy"]["value and gradient"]
        lines += ["", f"Photometric energy of the open face with its gradient: {both['median_ms']:.1f} ms."]
    return "\n".join(lines)


def _peers(render: dict) -> list[str]:
    names = {
        name.rsplit(" ", 1)[0]
        for times in render["times"].values()
        for name in times
        if name.endswith(" forward")
    }
    return sorted(names)


def _pair(times: dict, prefix: str) -> str:
    cells = [times.get(f"{prefix}{part}", {}).get("median_ms") for part in ("forward", "forward+backward")]
    return " / ".join("-" if cell is None else f"{cell:.1f}" for cell in cells)
