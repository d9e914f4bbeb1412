"""The settings of a recipe, section by section; the papers' values are the defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qpannot.recipe.comparing import AblationSettings, EvaluationSettings
from qpannot.recipe.refining import RefinementSettings
from qpannot.recipe.section import Section

ColorTriple = tuple[
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
]


class TissueSettings(Section):
    """AN1: how tissue is told from glass.

    The names and meanings are those of QuPath 0.6 ``SimpleTissueDetection2``, the numbers those of
    H2G-Net sec. 2.1 (threshold 200, requested pixel size 20, minimum area 100,000). The ``_um``
    settings hold for slides of known pixel size, ``requested_downsample`` and the ``_px2`` ones for
    the others.
    """

    method: Literal["threshold", "otsu"] = "threshold"
    """``threshold``: QuPath's simple tissue detection; ``otsu``: Otsu on HSV saturation at
    ``otsu_size_px`` (H2G-Net sec. 3.2, design I), its outlines cleaned as below."""

    threshold: int = Field(default=200, ge=0, le=255)
    requested_pixel_size_um: float = Field(default=20.0, gt=0)
    min_area_um2: float = Field(default=100_000.0, ge=0)
    max_hole_area_um2: float = 1_000_000.0
    """Holes smaller than this are filled; 0 or less fills every hole."""

    requested_downsample: float = Field(default=50.0, gt=0)
    min_area_px2: float = Field(default=100_000.0, ge=0)
    max_hole_area_px2: float = 500.0

    dark_background: bool = False
    smooth_image: bool = True
    median_cleanup: bool = True
    dilate_boundaries: bool = False
    smooth_coordinates: bool = True
    exclude_on_boundary: bool = False
    single_annotation: bool = True

    java_cuts: bool = True
    """Whether large, jagged outlines lose bands of tissue as they do in QuPath 0.6 on Java 25.0.3
    (see ``tissue.javaarea``). ``True`` gives what such a QuPath gives, ``False`` what QuPath gives
    on other Javas: all of the tissue. The shipped recipes say ``false``."""

    otsu_size_px: int = Field(default=1024, ge=16, le=8192)


class ProposalSettings(Section):
    """How a proposal looks in QuPath."""

    class_name: str = Field(default="Tumor", min_length=1)
    """The class a corrected proposal stands for: what is left after glass, artefacts and other
    tissue were cut away (H2G-Net sec. 2.1)."""

    color: ColorTriple = (200, 0, 0)
    """Used where the project does not know the class yet; QuPath's own red for Tumor."""

    locked: bool = False
    """QuPath locks what its detection makes. A proposal is there to be corrected, and a locked
    annotation refuses the brush."""


class RoundSettings(Section):
    """How large a round is, and when the next begins."""

    slides: int | None = Field(default=None, ge=1)
    """Slides that may wait for a person at one time; ``null``: all that are not reviewed."""

    train_after: int = Field(default=5, ge=1)
    """Slides newly reviewed after which the network is trained, or trained again; fewer do when
    none waits any more."""

    choose: Literal["entropy", "random"] = "entropy"
    """Which slides are proposed for first: those where the network is least sure, or any."""

    candidates: int | None = Field(default=None, ge=1)
    """Slides of which ``entropy`` makes heatmaps to choose from, drawn at random; ``null``: all."""


class PatchSettings(Section):
    """The patches a network sees (H2G-Net sec. 2.2)."""

    size_px: int = Field(default=256, ge=16)
    mpp: float = Field(default=1.0, gt=0)
    """Micrometres per pixel; 1.0 is 10x, the paper's "x100"."""

    stride_px: int | None = Field(default=None, ge=1)
    """From one patch to the next; ``null``: they do not overlap."""


class LabelSettings(Section):
    """What a patch is called, from the annotations (H2G-Net sec. 2.2)."""

    classes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("Tumor",), min_length=1
    )
    """QuPath classes to be told apart; ``Tumor: Invasive`` counts as ``Tumor`` where only that is
    listed."""

    rest: str = Field(default="Non-tumor", min_length=1)
    """What the tissue is called that is none of them; the network's first class."""

    coverage: Literal["exhaustive", "partial"] = "exhaustive"
    """``exhaustive``: what is not annotated in the tissue is the rest. ``partial``: only annotated
    areas count; the rest is what carries its name, and what is not annotated within ``Region*``."""

    min_tissue: float = Field(default=0.25, ge=0, lt=1)
    """A patch needs more tissue than this part of it."""

    min_class: float = Field(default=0.25, ge=0, lt=1)
    """A patch with more of a class than this part is of that class (of the largest such)."""

    max_class_in_rest: float = Field(default=0.0, ge=0, lt=1)
    """A patch with no more than this of every class is of the rest; between the two it is left out.
    """

    max_ignored: float = Field(default=0.05, ge=0, le=1)
    """A patch with more than this part of it in ``Ignore*`` is left out."""


class AnnotatorSettings(Section):
    """How the annotations of several people who read one slide independently become one truth."""

    rule: Literal["majority", "staple", "second_reader"] = "majority"
    """``majority``: what more than half of them say; where no class has so many, nothing is
    learned. ``staple``: what is most probable, given how well each agrees with all (Warfield et al.
    2004); of two people as ``majority``, for who of them errs cannot be told. ``second_reader``:
    the annotations of who approved the slide, else of who reviewed it last."""


class SamplingSettings(Section):
    """How the patches of a batch are drawn: each level uniformly, one after the other."""

    levels: tuple[str, ...] = ("grade", "slide", "class")
    """``slide``, ``class`` and keys of image metadata; a slide without the key is a branch of its
    own. The patch comes last."""


class SplitSettings(Section):
    """Which slides teach, which choose the model, and which judge it (H2G-Net sec. 3.1)."""

    train: float = Field(default=0.70, gt=0, le=1)
    validation: float = Field(default=0.15, ge=0, lt=1)
    test: float = Field(default=0.15, ge=0, lt=1)
    by: str | None = "patient"
    """Metadata key of what must not be divided; slides without it stand for themselves."""


class NetworkSettings(Section):
    """The patch network (H2G-Net sec. 2.2)."""

    encoder: str = "mobilenet_v2"
    """Any encoder of timm or segmentation-models-pytorch by name."""

    weights: str | None = "imagenet"
    """``imagenet``, a file of weights, or ``null`` to begin from nothing."""

    hidden_units: int = Field(default=100, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)


class AugmentationSettings(Section):
    """Changes of training patches, each made with the same probability (H2G-Net sec. 2.2)."""

    probability: float = Field(default=0.5, ge=0, le=1)
    flip: bool = True
    rotate: bool = True
    """By multiples of 90 degrees, without loss."""

    hsv_shift: float = Field(default=20.0, ge=0, le=255)
    """Largest shift of hue and saturation, of 255 and in either direction."""

    brightness: tuple[float, float] = (0.8, 1.2)
    """Range of the factor."""

    stain_sigma: float = Field(default=0.0, ge=0, lt=1)
    """How much of haematoxylin, of eosin and of the rest there is, is multiplied by up to 1 ± this
    and moved by up to a tenth of it (Tellez et al. 2018); not in the paper. For slides of other
    laboratories than those that teach."""


class ClusterSettings(Section):
    """How the patches are clustered for the cluster-weighted loss (H2G-Net sec. 2.2)."""

    batches: int = Field(default=100, ge=1)
    batch_size: int = Field(default=32, ge=1)
    variance: float = Field(default=0.95, gt=0, le=1)
    """Part of the variance that the principal components keep."""

    k: int = Field(default=10, ge=2)
    weights: str | None = "imagenet"
    """Of the VGG-16 whose features are clustered: ``imagenet``, a file, or ``null``."""


class TrainingSettings(Section):
    """How the patch network is trained (H2G-Net sec. 2.2)."""

    learning_rate: float = Field(default=1e-4, gt=0)
    batch_size: int = Field(default=64, ge=1)
    train_batches: int = Field(default=500, ge=1)
    """Batches in an epoch."""

    validation_batches: int = Field(default=200, ge=1)
    epochs: int = Field(default=100, ge=1)
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better validation loss after which to stop; ``null``: never."""

    schedule: Literal["constant", "one_cycle"] = "constant"
    """``one_cycle``: the learning rate rises to ``learning_rate`` over the first three tenths of
    all ``epochs`` and falls to nothing until the last (Smith 2018): for short trainings from
    nothing. ``patience`` would cut it short."""

    loss: Literal["cross_entropy", "cluster_weighted"] = "cross_entropy"
    start: Literal["last", "scratch"] = "last"
    """Whether a round goes on from the last model's weights or from ``network.weights``."""

    precision: Literal["auto", "32", "16-mixed", "bf16-mixed"] = "auto"
    """``auto``: 16-mixed on a GPU, 32 elsewhere."""

    workers: int | None = Field(default=None, ge=0)
    """Processes that read patches, besides those that calculate; ``null``: where a GPU calculates
    one for each core but one, else one for every fourth core, and eight at most."""

    seed: int = 0


class HeatmapSettings(Section):
    """How the network runs over a slide."""

    stride_px: int | None = Field(default=None, ge=1)
    """From one patch to the next, in pixels of the patches; ``null``: they do not overlap."""

    batch_size: int = Field(default=64, ge=1)


class OutlineSettings(Section):
    """How a heatmap becomes annotations (AN2)."""

    threshold: float = Field(default=0.5, gt=0, lt=1)
    closing_um: float = Field(default=0.0, ge=0)
    """Gaps narrower than twice this are closed before anything else."""

    opening_um: float = Field(default=0.0, ge=0)
    """Bridges and specks narrower than twice this are removed."""

    min_area_um2: float = Field(default=100_000.0, ge=0)
    min_hole_area_um2: float = Field(default=100_000.0, ge=0)
    """Holes smaller than this are filled."""

    smoothing_um: float | None = Field(default=None, ge=0)
    """How far a smoothed outline may lie from the mask's own, at most; ``null``: 0.4 of a pixel of
    the heatmap, which rounds its steps and loses no detail."""

    simplify_um: float = Field(default=10.0, ge=0)
    """How far a simplified outline may lie from the smoothed one, at most."""

    max_vertices: int = Field(default=20_000, ge=100)
    """An annotation of more is divided."""


class Recipe(Section):
    """A whole recipe."""

    name: str = "h2gnet"
    description: str = ""
    tissue: TissueSettings = TissueSettings()
    proposal: ProposalSettings = ProposalSettings()
    round: RoundSettings = RoundSettings()
    patches: PatchSettings = PatchSettings()
    labels: LabelSettings = LabelSettings()
    annotators: AnnotatorSettings = AnnotatorSettings()
    sampling: SamplingSettings = SamplingSettings()
    split: SplitSettings = SplitSettings()
    network: NetworkSettings = NetworkSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    clusters: ClusterSettings = ClusterSettings()
    training: TrainingSettings = TrainingSettings()
    heatmap: HeatmapSettings = HeatmapSettings()
    refinement: RefinementSettings = RefinementSettings()
    outlines: OutlineSettings = OutlineSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    ablation: AblationSettings = AblationSettings()
