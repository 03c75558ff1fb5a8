"""Figure 13: high or low regularisation in the first epochs only, cifar10."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.phases import differ_in_the_end
from fisher_jax.report.shapes.two_phase import ALT, CAPTION, TwoPhase, draw_two_phase

VARIED = "batch_size"
PUBLISHED = {
    "high": TwoPhase(390, (730, 900), 88.7),
    "low": TwoPhase(1500, (1200, 1800), 87.6),
}

ITEM = Item(
    name="Figure 13",
    title="Final Tr(H) and accuracy by the first epochs' batch size",
    place="appendix A.4",
    experiments=("fig06",),
    published=PUBLISHED,
    figure=FigurePart(
        partial(draw_two_phase, varied=VARIED, dataset="cifar10", published=PUBLISHED),
        CAPTION.format(word="batch size"),
        ALT,
    ),
    claims=(
        Claim(
            "A small early batch ends in flatter minima (smaller Tr(H)).",
            partial(
                differ_in_the_end,
                varied=VARIED,
                quantity="hessian_trace_at_best_test",
                factor=1.0,
                high_is_larger=False,
            ),
        ),
        Claim(
            "A small early batch ends in better accuracy.",
            partial(
                differ_in_the_end,
                varied=VARIED,
                quantity="best_test_accuracy",
                factor=100.0,
                high_is_larger=True,
            ),
        ),
    ),
)
