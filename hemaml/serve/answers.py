"""What the API answers: the one definition of its JSON, of which `/openapi.json` is made.

Pixels are counted from the upper left corner of the image as it was sent, x to the right.
"""

from typing import Literal

from pydantic import Field

from hemaml.core.types import Frozen

NOTICE: Literal["For research, not for diagnosis."] = "For research, not for diagnosis."
Point = tuple[float, float]
Kind = Literal["classification", "segmentation"]
Explains = Literal["grad_cam", "contours", "neighbours"]
Part = Literal["held out", "validation"]


class Answer(Frozen):
    """What every answer with results says."""

    notice: Literal["For research, not for diagnosis."] = NOTICE


class Limits(Frozen):
    """What a client may send."""

    bytes: int = Field(description="Of a request.")
    pixels: int = Field(description="Of an image.")
    images: int = Field(description="Of a request.")
    requests_per_minute: int = Field(description="Predictions and explanations of one address.")


class Loaded(Frozen):
    """A model that answers now."""

    name: str
    version: int
    uri: str
    problem: str | None = Field(description="Why a newer version does not answer instead.")


class RegistryState(Frozen):
    """How the last look at the registry went; models go on answering whatever it was."""

    reachable: bool
    seconds_since: float = Field(description="Since a look that succeeded.")
    problem: str | None


class Health(Answer):
    """Whether the server can answer, and what it allows."""

    status: Literal["ok", "degraded"] = Field(
        description="degraded: it answers, by models that may be out of date; see the problems."
    )
    version: str
    token_required: bool
    limits: Limits
    models: list[Loaded]
    registry: RegistryState


class ServedTask(Frozen):
    """A task, and the registered models that serve it."""

    name: str
    kind: Kind
    title: str
    models: list[str]


class Tasks(Answer):
    """The tasks that are served."""

    tasks: list[ServedTask]


class Score(Frozen):
    """A score of a model with its 95 % interval, where that is known."""

    value: float
    low: float | None
    high: float | None
    part: Part


class SplitFacts(Frozen):
    """How the data of a model was parted."""

    kind: str
    leaky: bool = Field(description="Whether items of one patient lie in several parts.")
    text: str


class Calibration(Frozen):
    """How far probabilities are from frequencies: the expected calibration error."""

    ece: float
    part: Part


class ModelFacts(Frozen):
    """A model that answers, and what is known of it."""

    name: str
    version: int
    uri: str
    alias: str | None = Field(description="By which it was found; null where by its number.")
    task: str
    kind: Kind
    objective: str
    data: str
    classes: list[str]
    metrics: dict[str, Score]
    split: SplitFacts
    card: str = Field(description="Markdown.")
    explains: Explains | None
    novelty: bool = Field(description="Whether it knows images unlike those it was trained on.")
    calibration: Calibration | None


class Models(Answer):
    """All models that answer."""

    models: list[ModelFacts]


class Answering(Frozen):
    """The version that gave an answer."""

    name: str
    version: int
    uri: str


class Segmentation(Frozen):
    """Areas and outlines of an image's classes; the background has an area alone."""

    areas: dict[str, int] = Field(description="Pixels of each class.")
    fractions: dict[str, float] = Field(description="Share of the image of each class.")
    nucleus_cytoplasm_ratio: float | None = Field(
        description="Pixels of the nucleus over those of the cytoplasm; null where there are none."
    )
    contours: dict[str, list[list[Point]]] = Field(
        description="Closed polygons of x, y; one inside another is a hole, or an island in one."
    )


class Novelty(Frozen):
    """How unlike the training images one is, as the model sees it."""

    distance: float = Field(description="To the k-th nearest training image, in deviations.")
    percentile: float = Field(
        description="Share of training images, in per cent, that are nearer to each other."
        " Above 99 the image is unlike them."
    )
    unlike: bool
    text: str


class Result(Frozen):
    """What the model says of one image."""

    index: int
    name: str
    width: int
    height: int
    label: str | None
    probabilities: dict[str, float] | None
    segmentation: Segmentation | None
    novelty: Novelty | None


class Prediction(Answer):
    """What the model says of the images, in their order."""

    model: Answering
    results: list[Result]


class GradCam(Frozen):
    """Where the model sees a class."""

    kind: Literal["grad_cam"] = "grad_cam"
    target: str
    method: str
    layer: str
    heat: str = Field(
        description="A PNG as data URI, to lie over the image; clear where cold, grey where the "
        "model has not seen it."
    )
    shown: float = Field(description="Share of the image that the model has seen.")


class Contours(Frozen):
    """What the model sees where."""

    kind: Literal["contours"] = "contours"
    segmentation: Segmentation
    overlay: str = Field(description="A PNG as data URI, to lie over the image.")


class Neighbour(Frozen):
    """A training image that the model compared the image with."""

    label: str
    similarity: float = Field(description="Cosine of the embeddings.")
    weight: float = Field(description="0 to 1: how much it matters to the predicted class.")
    name: str
    picture: str | None = Field(description="A small PNG as data URI.")


class Neighbours(Frozen):
    """The training images nearest to the image, by their weight."""

    kind: Literal["neighbours"] = "neighbours"
    k: int
    neighbours: list[Neighbour]


class Explanation(Answer):
    """Why the model says what it says of one image."""

    model: Answering
    result: Result
    explanation: GradCam | Contours | Neighbours = Field(discriminator="kind")


class Sample(Frozen):
    """An image to try with."""

    name: str
    url: str
    text: str


class Samples(Answer):
    """Images that hemaml draws, for those who have none at hand."""

    samples: list[Sample]


class Problem(Frozen):
    """Why a request got no answer (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    rule: str = Field(description="What must hold.")
    value: str | None = Field(description="What was found instead.")
    action: str | None = Field(description="What to do next.")
    instance: str
