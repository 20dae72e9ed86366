"""How much of the demo fits into a time, given how fast the machine is."""

from __future__ import annotations

from dataclasses import dataclass


BLOCK_TOKENS = 128  # of training and of held-out text
BATCH_SIZE = 2  # blocks of a training step
LAYERS = 30
PROBE_TOKENS = 16  # of a typical probe
_LENGTHS = 18  # probes of equal length run together; there are so many lengths

_USABLE = 0.9  # of the time: what is measured at the start may be slower later
_DIAGNOSIS_SHARE, _EVALUATION_SHARE = 0.3, 0.25
_OVERHEAD = 1.3  # of a diagnosis: clean runs, lens, summaries
_CHECKS = 200  # passes of a single probe beside the draws: replay is checked at each length, and context is masked
_STEPS_PER_MINUTE, _FEWEST_STEPS = 8, 4
_MOST_BLOCKS, _FEWEST_BLOCKS = 48, 4
_MODELS = 3  # the untouched one and two that were trained
_PROCESSES = 4  # one prepares, then one a model
# A block costs 3 units of forward passes to train; with the deep half frozen, its gradients of weights are saved.
_FROZEN_PART = 2.5 / 3


@dataclass(frozen=True)
class Speed:
    """Seconds that things take on this machine, as it is now.

    Args:
        start (`float`): A process: imports, and a model from the disk.
        train (`float`): Forward and backward pass of a block of text through all layers, in the better data type.
        update (`float`): The optimizer's step over all parameters.
        read (`float`): Forward pass of a block of text in float32.
        alone (`float`): Forward pass of a single probe, in the data type that the diagnosis runs in.
        ask (`float`): What one more probe in a forward pass adds to that.
        train_dtype (`str`): `"float32"`, or `"bfloat16"` where that was faster.
        ask_dtype (`str`): The same, of forward passes.
    """

    start: float
    train: float
    update: float
    read: float
    alone: float
    ask: float
    train_dtype: str
    ask_dtype: str


@dataclass(frozen=True)
class Look:
    """How closely the model is diagnosed.

    Args:
        name (`str`): In words.
        perturbation (`str`): As in [`DiagnosisConfig`].
        probes (`int`): How many probes.
        repeats (`int`): Random masks per probe.
    """

    name: str
    perturbation: str
    probes: int
    repeats: int

    def seconds(self, speed: Speed) -> float:
        """What the diagnosis takes: each draw on a layer runs the layers after it, half of the model on average."""
        repeats = [self.repeats if name == "mask" else 1 for name in self.perturbation.split(",")]
        passes = len(repeats) * min(self.probes, _LENGTHS)
        draws = LAYERS / 2 * (passes * speed.alone + self.probes * sum(repeats) * speed.ask)
        return _OVERHEAD * (draws + _CHECKS * speed.alone)


# From the closest to the quickest.
LOOKS = (
    Look("an exact diagnosis", "mask,skip", 144, 2),
    Look("an exact diagnosis with one mask a probe", "mask,skip", 144, 1),
    Look("an exact diagnosis on half of the probes", "mask,skip", 72, 1),
    Look("a quick look", "skip", 72, 1),
    Look("a quick look", "skip", 24, 1),
)


@dataclass(frozen=True)
class Training:
    """How much is trained and evaluated.

    Args:
        steps (`int`): Optimizer steps of each run.
        blocks (`int`): Held-out blocks of text that each model is evaluated on.
    """

    steps: int
    blocks: int

    @property
    def tokens(self) -> int:
        """Training tokens of each run."""
        return self.steps * BATCH_SIZE * BLOCK_TOKENS


def choose_look(speed: Speed, seconds: float) -> Look:
    """The closest look at the model that leaves time for the rest.

    Args:
        speed ([`Speed`]): How fast the machine is.
        seconds (`float`): The time for everything.

    Returns:
        [`Look`]: The quickest one where none fits.
    """
    least = Training(_FEWEST_STEPS, _FEWEST_BLOCKS)
    for look in LOOKS:
        own = look.seconds(speed)
        if own <= _DIAGNOSIS_SHARE * seconds and own + training_seconds(speed, look, least) <= _USABLE * seconds:
            return look
    return LOOKS[-1]


def choose_training(speed: Speed, look: Look, minutes: float, seconds: float) -> Training:
    """As much training and evaluation as fits.

    Args:
        speed ([`Speed`]): How fast the machine is.
        look ([`Look`]): The diagnosis, whose probes are asked again of each model.
        minutes (`float`): The time for the whole demo: a fast machine does not train longer than is useful in it.
        seconds (`float`): What is left of that time.

    Returns:
        [`Training`]: The least that makes sense where no more fits.
    """
    left = _USABLE * seconds - training_seconds(speed, look, Training(0, 0))
    for_evaluation = min(_EVALUATION_SHARE * left, left - _FEWEST_STEPS * _step_seconds(speed))
    blocks = _between(_FEWEST_BLOCKS, for_evaluation / (_MODELS * speed.read), _MOST_BLOCKS)
    left -= _MODELS * blocks * speed.read
    steps = _between(_FEWEST_STEPS, left / _step_seconds(speed), _STEPS_PER_MINUTE * minutes)
    return Training(steps, blocks)


def training_seconds(speed: Speed, look: Look, training: Training) -> float:
    """What follows the diagnosis: two runs of training, and three models evaluated.

    Args:
        speed ([`Speed`]): How fast the machine is.
        look ([`Look`]): The diagnosis.
        training ([`Training`]): How much is trained.

    Returns:
        `float`: Seconds.
    """
    asked = look.probes * PROBE_TOKENS / BLOCK_TOKENS
    evaluation = _MODELS * (training.blocks + asked) * speed.read
    return _PROCESSES * speed.start + evaluation + training.steps * _step_seconds(speed)


def _step_seconds(speed: Speed) -> float:
    """A step of each of the two runs."""
    return (1 + _FROZEN_PART) * BATCH_SIZE * speed.train + 2 * speed.update


def _between(least: int, value: float, most: float) -> int:
    return max(least, int(min(value, most)))
