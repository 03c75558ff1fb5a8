"""The chart that opens the pages of speed: ours and every peer, from results.json."""

from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks.summary import compared

OURS, PEERS = "#1b6ca8", "#b9bec4"


def draw(folder: Path, path: Path) -> None:
    """Draws a panel of horizontal bars for each kind of work that peers do, too.

    Every panel has its own scale, which begins at zero: bars are as long as times are.

    Args:
        folder: with the results.json that is drawn.
        path: of the image.
    """
    works = [work for work in compared(folder) if work[2]]
    bars = [1 + len(peers) for _, _, peers in works]
    figure, panels = plt.subplots(
        len(works), 1, figsize=(7, 0.22 * sum(bars) + 0.45 * len(works)),
        gridspec_kw={"height_ratios": bars}, layout="constrained",
    )  # fmt: skip
    for panel, (title, ours, peers) in zip(panels, works, strict=True):
        names, times = ["fisher_jax", *peers], [ours, *peers.values()]
        colors = [OURS, *[PEERS] * len(peers)]
        drawn = panel.barh(names, times, color=colors)
        labels = [f"{t:,.0f}" if t >= 10 else f"{t:.1f}" for t in times]
        panel.bar_label(drawn, labels, padding=3, fontsize=8)
        panel.set_title(title, loc="left", fontsize=9)
        panel.invert_yaxis()
        panel.tick_params(labelsize=8, bottom=False, labelbottom=False)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
        panel.margins(x=0.15)
    panels[-1].set_xlabel("milliseconds, less is better", fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)
