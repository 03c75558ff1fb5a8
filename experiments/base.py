"""Every configuration key with its default; the other files start from here.

    python main.py --config=experiments/base.py --workdir=runs/base

trains SimpleCNN on scikit-learn's digits without any penalty, for a first look.
What is allowed for each key stands in ``fisher_jax/train/config.py``.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """Returns the defaults, locked: assigning to an unknown key is an error.

    Args:
        arg: the text after ``:`` in ``--config=FILE.py:arg``; there are no variants
            of this file, so it must be empty.
    """
    if arg:
        raise ValueError(f"base.py has no variants, got {arg!r}")
    config = ConfigDict()
    # Initialisation, label noise, validation split, batches, draws: all from here.
    config.seed = 0
    # tensorboard | wandb | mlflow: who shows the metrics beside metrics.jsonl; the last
    # two are extras, and know their place from WANDB_MODE, MLFLOW_TRACKING_URI, ...
    config.tracker = "tensorboard"

    config.dataset = ConfigDict()
    # digits | cifar10 | cifar100 | tiny_imagenet | imagenet2012 | any TFDS set with the
    # features image and label
    config.dataset.name = "digits"
    # Where TFDS sets are prepared; None = TFDS's own default (~/tensorflow_datasets)
    config.dataset.data_dir = None
    # Size of a random subset of the training split; None = all that remain
    config.dataset.num_train = None
    # Training examples set aside for validation, chosen by (seed, example id)
    config.dataset.num_validation = 0
    # none | flip | standard (pad 4, random crop, horizontal flip; of photographs: a
    # random part of 8% to 100% of the image, horizontal flip)
    config.dataset.augment = "none"
    # Fraction of training labels replaced by uniform draws over the classes
    config.dataset.label_noise = 0.0
    # What follows is for sets of photographs (imagenet2012) only, whose images differ
    # in size; they are read from disk while training. None = what stands in brackets.
    # The shorter side is resized to (256) pixels, of which the middle (224) are kept
    config.dataset.resize_size = None
    config.dataset.crop_size = None
    # Threads that decode, in each process; 0 = one for each core (0)
    config.dataset.decode_threads = None
    # Processes that decode in place of these threads; faster on many cores (0)
    config.dataset.num_workers = None
    # Batches that are ready or under way before they are needed (2)
    config.dataset.read_ahead = None

    config.model = ConfigDict()
    # simple_cnn | vgg11 | densenet | wide_resnet | resnet | fixup_resnet
    config.model.name = "simple_cnn"
    # What follows is for some models only; None = the paper's value.
    # simple_cnn: keras (the paper's) | same (for images too small for it, as 8x8)
    config.model.padding = None
    # densenet, wide_resnet, resnet: number of layers
    config.model.depth = None
    # wide_resnet: widening factor
    config.model.width = None
    # densenet: channels that each layer adds, the paper's k
    config.model.growth_rate = None
    # wide_resnet: batch_norm | skip_init; resnet: batch_norm | weight_norm
    config.model.normalisation = None
    # float32 | bfloat16: activations; parameters and traces stay float32
    config.model.compute_dtype = "float32"

    config.optimizer = ConfigDict()  # SGD, as PyTorch defines it
    config.optimizer.learning_rate = 0.01
    config.optimizer.momentum = 0.9
    # Coupled: weight_decay * params is added to the gradient, of every parameter
    config.optimizer.weight_decay = 0.0
    # The learning rate is multiplied by decay_factor at each of decay_epochs
    config.optimizer.decay_factor = 0.1
    config.optimizer.decay_epochs = ()

    config.train = ConfigDict()
    config.train.num_epochs = 20
    # Global batch size, over all devices; the last incomplete batch is dropped
    config.train.batch_size = 128
    # Each device computes its share of the batch in so many parts, one after another,
    # for batches larger than memory; the step and its penalty are those of the whole
    # batch. Not with batch norm, whose statistics would be of a part
    config.train.microbatches = 1
    # A run directory whose final parameters start this run; None = initialise
    config.train.init_from = None
    # On GPUs, only operations that give the same bits every time; some are slower
    config.train.deterministic = True

    config.penalty = ConfigDict()
    # none | fisher | fisher_single | gradient | random_label | input_gradient
    # | gradient_norm (Zhao et al. 2022, to first order, in every step)
    config.penalty.name = "none"
    # labels: the paper's FP | rademacher: RFP (penalty fisher only)
    config.penalty.draw = "labels"
    # alpha: loss = cross-entropy + coefficient * penalty
    config.penalty.coefficient = 0.0
    # f: the penalty's gradient is recomputed every so many steps, reused in between
    config.penalty.update_every = 10
    # The penalty sees the first so many examples of the batch; None = all
    config.penalty.num_examples = None
    # Epochs of plain training before the penalty is switched on (figure 3)
    config.penalty.start_epoch = 0
    # gradient_norm only: r, how far ahead its second gradient is taken
    config.penalty.radius = 0.05
    # exact (forward-over-reverse) | finite_difference (two gradients)
    config.penalty.method = "exact"
    # Batch norm inside the penalty: train (this batch's statistics) | eval (running)
    config.penalty.batch_norm = "train"

    config.mixup = ConfigDict()
    config.mixup.beta = 0.0  # lambda ~ Beta(beta, beta); 0 = off
    config.sam = ConfigDict()
    config.sam.radius = 0.0  # sharpness-aware minimisation's rho; 0 = off

    config.measure = ConfigDict()
    # A record in metrics.jsonl every so many epochs, and at step 0 and at the end
    config.measure.every_epochs = 1
    # Beside that, Tr(F) and the minibatch's loss every so many steps, Tr(F) on examples
    # drawn anew at each of them; 0 = off
    config.measure.every_steps = 0
    # Training examples for train/loss and train/accuracy; None = all
    config.measure.train_examples = None
    # Training examples for Tr(F); those of every_epochs are the same along the run;
    # 0 = off
    config.measure.fisher_examples = 1000
    # per_example | exact | minibatch | forward
    config.measure.fisher_estimator = "per_example"
    # rademacher (precise late in training) | importance (more so) | labels (paper)
    config.measure.fisher_draw = "rademacher"
    # Gaussian probes for Tr(H), the paper takes 30; 0 = off
    config.measure.hessian_probes = 0
    # Training examples for Tr(H)
    config.measure.hessian_examples = 128
    # Tr(H) in the records of every so many epochs only, and of the last
    config.measure.hessian_every_epochs = 1
    # Clean and noisy examples, each, for gradient/*; only with label noise; 0 = off
    config.measure.gradient_examples = 500
    # Relative errors of all estimators of Tr(F) and Tr(H), each over so many repeats,
    # on the examples of Tr(F): see fisher_jax/estimator_errors.py; 0 = off
    config.measure.estimator_repeats = 0
    # epsilon: early Tr(F) is taken at the first epoch whose training loss is below it
    config.measure.early_loss = 1.2
    # Examples per device call in evaluation, and per chunk of Tr(F)
    config.measure.batch_size = 1000
    config.measure.chunk_size = 128

    config.eval = ConfigDict()
    # Training batches on which batch norm's statistics are estimated anew before each
    # measurement, the paper takes 100; 0 = use the running averages
    config.eval.reestimate_batch_norm = 0

    config.checkpoint = ConfigDict()
    # At the end of every so many epochs, if min_seconds have passed since the last
    config.checkpoint.every_epochs = 1
    config.checkpoint.min_seconds = 30.0
    # The last so many are kept; each also holds the best parameters by validation
    config.checkpoint.keep = 2
    config.lock()
    return config
