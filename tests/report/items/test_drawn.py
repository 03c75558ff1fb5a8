"""What figures draw is the quantity that the appendix says, from the records."""

import numpy as np
import pytest

from benchmarks.synthetic_runs import paper_runs
from fisher_jax.report.build import draw, item_rows
from fisher_jax.report.collect import load_runs
from fisher_jax.report.item import all_items
from fisher_jax.report.names import method_latex

ITEMS = all_items()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    paper_runs(folder, num_epochs=6, num_seeds=2)
    return load_runs([folder])


def drawn(key, runs):
    rows = item_rows(ITEMS[key], runs)
    return rows, draw(ITEMS[key].figure, rows, runs).figure


def records(runs, rows, metric):
    """A metric's mean over runs, at the epochs that all have."""
    frames = [
        runs.metrics[i].drop_duplicates("epoch").set_index("epoch") for i in rows.index
    ]
    return np.mean([frame[metric].dropna() for frame in frames], axis=0)


def is_drawn(axes, values):
    return any(
        len(line.get_ydata()) == len(values) and np.allclose(line.get_ydata(), values)
        for line in axes.lines
    )


@pytest.mark.parametrize("key", ["figure6", "figure13"])
def test_bars_are_of_the_trace_at_the_end_of_phase_one(runs, key):
    rows, figure = drawn(key, runs)
    dataset = {"figure6": "cifar100", "figure13": "cifar10"}[key]
    firsts = rows[(rows["init_from"] == "") & (rows["dataset"] == dataset)]
    last = [runs.metrics[i]["trace/fisher"].iloc[-1] for i in firsts.index]
    heights = sorted(bar.get_height() for bar in figure.axes[0].patches)
    assert len(heights) == 2
    assert np.mean(heights) == pytest.approx(np.mean(last))


def test_figure_12_is_the_cosine_for_fp_and_for_gp_r(runs):
    rows, figure = drawn("figure12", runs)
    rows = rows[(rows["noise"] == 0.25) & (rows["model"] == "vgg11")]
    panels = [axes for axes in figure.axes if "VGG" in axes.get_title()]
    methods = [axes.get_title().split("\n")[1] for axes in panels]
    assert methods == [method_latex(key) for key in ("fp", "gp_r")]
    for axes, method in zip(panels, ("fp", "gp_r"), strict=True):
        groups = rows[rows["method"] == method].groupby("coefficient")
        for _, group in groups:
            assert is_drawn(axes, records(runs, group, "gradient/cosine"))
        plain = rows[rows["method"] == "baseline"]
        assert is_drawn(axes, records(runs, plain, "gradient/cosine"))


@pytest.mark.parametrize(("key", "model"), [("figure5", "vgg11"), ("figure11", None)])
def test_figures_5_and_11_have_norms_ratio_accuracies_and_the_scatter(runs, key, model):
    rows, figure = drawn(key, runs)
    rows = rows[(rows["noise"] == 0.25) & (rows["method"] == "baseline")]
    is_first = rows["model"] == "vgg11"
    rows = rows[is_first if model else ~is_first]
    axes = figure.axes[:6]
    clean, noisy = (
        records(runs, rows, f"gradient/{kind}_norm") for kind in ("clean", "noisy")
    )
    assert is_drawn(axes[0], clean)
    assert is_drawn(axes[1], noisy)
    assert is_drawn(axes[2], records(runs, rows, "gradient/noisy_norm") / clean)
    clean, noisy = (
        100 * records(runs, rows, f"train/{kind}_accuracy")
        for kind in ("clean", "noisy")
    )
    styles = {
        line.get_linestyle(): line.get_ydata()
        for line in axes[3].lines
        if np.allclose(line.get_ydata(), clean) or np.allclose(line.get_ydata(), noisy)
    }
    assert np.allclose(styles["-"], clean)
    assert np.allclose(styles["--"], noisy)
    assert "accuracy" in axes[4].get_ylabel()
    scatter = [line.get_xydata() for line in axes[5].lines]
    assert any(np.allclose(xy, np.stack([noisy, clean], 1)) for xy in scatter)


def test_figures_4_and_10_have_the_papers_networks(runs):
    titles = {
        key: {axes.get_title() for axes in drawn(key, runs)[1].axes} - {""}
        for key in ("figure4", "figure10")
    }
    assert titles["figure10"] == {"DenseNet / CIFAR-100", "SimpleCNN / CIFAR-10"}
    assert not titles["figure4"] & titles["figure10"]


def test_figure_14_names_loss_and_accuracy_beside_the_papers(runs):
    _, figure = drawn("figure14", runs)
    names = [
        text.get_text()
        for part in figure.subfigs
        for legend in part.legends
        for text in legend.get_texts()
    ]
    assert len(names) == 12
    assert all("ℓ = " in name and "TA = " in name for name in names)
    assert any(name.endswith("(paper 90.7%)") for name in names)


def test_figure_21_is_against_the_minibatch_form(runs):
    rows, figure = drawn("figure21", runs)
    for axes in figure.axes:
        minibatch, per_example = axes.lines[:2]
        found = {
            "trace/fisher_minibatch": minibatch.get_xydata(),
            "trace/fisher": per_example.get_xydata(),
        }
        for metric, points in found.items():
            recorded = {
                tuple(pair)
                for i in rows.index
                for pair in runs.metrics[i][[metric, "trace/hessian"]].to_numpy()
            }
            assert {tuple(point) for point in points} <= recorded
        # A smaller magnitude, as the paper says.
        assert minibatch.get_xdata().max() < per_example.get_xdata().min()
