import numpy as np
import pandas as pd
import pytest

from fisher_jax.report.items.figure3 import onset_means


def test_onset_means_by_hand():
    table = pd.DataFrame(
        {
            "method": ["fp", "fp", "fp", "baseline"],
            "start_epoch": [1.0, 1.0, 8.0, 0.0],
            "test_accuracy": [0.5, 0.7, 0.4, 0.1],
        }
    )
    means = onset_means(table)
    np.testing.assert_allclose(means["start_epoch"], [1, 8])
    np.testing.assert_allclose(means["mean"], [60, 40])
    assert means["std"].iloc[0] == pytest.approx(10 * 2**0.5)
