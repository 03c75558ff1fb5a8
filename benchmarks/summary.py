"""The README's table of speed, from results.json."""

import json
import re
from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- speed: made by make bench -->", "<!-- /speed -->"
NETWORK = "SimpleCNN"

# Of each table: what the README calls it, and which of our rows it shows.
_SHOWN = {
    "Plain gradient": ("gradient", "ours"),
    "Gradient of the Fisher Penalty": ("gradient of the Fisher Penalty", "ours, exact"),
    "Training step": ("training step, penalty renewed every 10", "ours, exact"),
    "Tr(F)": ("Tr(F), one draw per example", "ours, signs"),
    "Tr(H)": ("Tr(H), 30 probes", "ours, forward"),
}
_EXACT = "ours, exact Tr(F) = Tr(H)"


def table(results: dict[str, Any]) -> str:
    """Milliseconds of ours and of every peer on SimpleCNN, as Markdown."""
    machine = results["machine"]
    tables = [t for t in results["tables"] if t["network"].startswith(NETWORK)]
    lines = [
        f"Milliseconds on {machine['cores']} CPU cores, {tables[0]['network']}, "
        f"jax {machine['jax']}, PyTorch {machine['torch'].split('+')[0]} "
        f"({machine['date'][:10]}; [all](benchmarks/results.md)):",
        "",
        "| work | fisher_jax | others |",
        "| --- | --- | --- |",
    ]
    for one in tables:
        for start, (title, ours) in _SHOWN.items():
            if one["title"].startswith(start):
                times = {row["name"]: row["milliseconds"] for row in one["rows"]}
                lines.append(f"| {title} | {times[ours]:.0f} | {_peers(times)} |")
                if _EXACT in times:
                    title = "Tr(H) of a ReLU network, exactly"
                    lines.append(f"| {title} | {times[_EXACT]:.0f} | |")
    return "\n".join(lines)


def _peers(times: dict[str, float]) -> str:
    peers = {n: t for n, t in times.items() if not n.startswith("our")}
    return ", ".join(f"{name} {time:.0f}" for name, time in peers.items())


def write(results_file: Path) -> None:
    """Puts the table between its marks in the README."""
    results = json.loads(results_file.read_text(encoding="utf-8"))
    text = README.read_text(encoding="utf-8")
    marked = f"{BEGIN}\n{table(results)}\n{END}"
    pattern = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    README.write_text(
        re.sub(pattern, lambda _: marked, text, flags=re.DOTALL), encoding="utf-8"
    )
