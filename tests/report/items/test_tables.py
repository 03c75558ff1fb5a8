"""The published tables: their sizes, and a number of each against a slip of columns."""

import pytest

from fisher_jax.report.items import (
    table1,
    table2,
    table3,
    table4,
    table5,
    table6,
    table7,
    table8,
    table9,
)

CNN, RESNET = "cifar10_simple_cnn", "cifar100_wide_resnet"


@pytest.mark.parametrize(
    ("table", "size", "last", "value"),
    [
        (table1, 30, (CNN, "gp_r"), 79.76),
        (table2, 10, (CNN, "fp"), 87.52),
        (table3, 20, (RESNET, "0.5", "gp_r"), 50.08),
        (table4, 24, (CNN, "gp_r"), 25.35),
        (table5, 30, (CNN, "gp_r"), 20.55),
        (table6, 30, (CNN, "gp_r"), 94.64),
        (table7, 10, ("tiny_imagenet_wide_resnet", "fp"), 93.65),
        (table8, 10, (RESNET, "0.25", "gp_r"), 74.21),
        (table9, 10, (RESNET, "0.25", "gp_r"), 2.86),
    ],
)
def test_published_values(table, size, last, value):
    assert len(table.ITEM.published) == size
    assert table.ITEM.published[last].value == value


def test_deviations_are_kept_beside_values():
    assert table2.ITEM.published["cifar100_vgg11", "eta_star"].std == 1.2
    assert table7.ITEM.published["tiny_imagenet_wide_resnet", "fp"].std == 5.85


def test_fp_costs_1_09_to_1_69_times_the_baseline_in_the_paper():
    times = table5.ITEM.published
    settings = {setting for setting, _ in times}
    ratios = [times[s, "fp"].value / times[s, "baseline"].value for s in settings]
    assert [round(min(ratios), 2), round(max(ratios), 2)] == [
        1.09,
        table5.LARGEST_RATIO,
    ]
