"""The README's tables of speed, from results.json."""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"
RESULTS = (".", "h100")
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


def tables(folder: Path = FOLDER) -> str:
    """The table of the CPU, then that of the GPU, as Markdown."""
    return "\n\n".join(_table(folder / name) for name in RESULTS)


def _table(path: Path) -> str:
    """Milliseconds of ours and of every peer on SimpleCNN, as Markdown."""
    results = json.loads((path / "results.json").read_text(encoding="utf-8"))
    machine = results["machine"]
    device = machine["device"]
    where = f"{machine['cores']} CPU cores" if device == "cpu" else f"one {device}"
    on_network = [t for t in results["tables"] if t["network"].startswith(NETWORK)]
    page = (path / "results.md").relative_to(README.parent).as_posix()
    lines = [
        f"Milliseconds on {where}, {on_network[0]['network']}, "
        f"jax {machine['jax']}, PyTorch {machine['torch'].split('+')[0]} "
        f"({machine['date'][:10]}; [all]({page})):",
        "",
        "| work | fisher_jax | others |",
        "| --- | --- | --- |",
    ]
    for title, ours, peers in compared(path):
        others = ", ".join(f"{name} {_digits(time)}" for name, time in peers.items())
        lines.append(f"| {title} | {_digits(ours)} | {others} |".replace("|  |", "| |"))
    return "\n".join(lines)


def compared(path: Path) -> list[tuple[str, float, dict[str, float]]]:
    """Work on SimpleCNN: (what, our milliseconds, those of every peer)."""
    results = json.loads((path / "results.json").read_text(encoding="utf-8"))
    found: list[tuple[str, float, dict[str, float]]] = []
    for one in results["tables"]:
        for start, (title, ours) in _SHOWN.items():
            if one["network"].startswith(NETWORK) and one["title"].startswith(start):
                times = {row["name"]: row["milliseconds"] for row in one["rows"]}
                found.append((title, times[ours], _peers(times)))
                if _EXACT in times:
                    title = "Tr(H) of a ReLU network, exactly"
                    found.append((title, times[_EXACT], {}))
    return found


def _peers(times: dict[str, float]) -> dict[str, float]:
    return {
        name.replace("1 probe of 30", "30 times one probe"): time
        for name, time in times.items()
        if not name.startswith("our")
    }


def _digits(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds < 10 else f"{milliseconds:.0f}"


def write() -> None:
    """Puts the tables between their marks in the README."""
    text = README.read_text(encoding="utf-8")
    marked = f"{BEGIN}\n{tables()}\n{END}"
    pattern = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    README.write_text(
        re.sub(pattern, lambda _: marked, text, flags=re.DOTALL), encoding="utf-8"
    )
