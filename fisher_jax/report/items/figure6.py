"""Figure 6: high or low regularisation in the first epochs only, cifar100."""

from functools import partial

from fisher_jax.report.claims import Claim
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.phases import differ_in_the_end
from fisher_jax.report.shapes.two_phase import ALT, CAPTION, TwoPhase, draw_two_phase

VARIED = "learning_rate"
PUBLISHED = {
    "high": TwoPhase(1230, (1200, 1350), 55.0),
    "low": TwoPhase(2720, (3100, 4200), 49.0),
}

ITEM = Item(
    name="Figure 6",
    title="Final Tr(H) and accuracy by the first epochs' learning rate",
    place="section 5",
    experiments=("fig06",),
    published=PUBLISHED,
    figure=FigurePart(
        partial(draw_two_phase, varied=VARIED, dataset="cifar100", published=PUBLISHED),
        CAPTION.format(word="learning rate"),
        ALT,
    ),
    claims=(
        Claim(
            "A high early learning rate ends in flatter minima (smaller Tr(H)).",
            partial(
                differ_in_the_end,
                varied=VARIED,
                quantity="hessian_trace_at_best_test",
                factor=1.0,
                high_is_larger=False,
            ),
        ),
        Claim(
            "A high early learning rate ends in better accuracy.",
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
