"""Every setting and its default. Each script turns one of these dataclasses into its flags and YAML keys.

The docstring under a field is what `--help` prints. `None` means "decide from the data or the checkpoint".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args

from captcha_reader.errors import UserError

ModelName = Literal["mixer", "crnn", "efficientnet", "resnet", "lacc"]
HeadName = Literal["ctc", "mixer", "slots", "positions", "combination"]
CTC_HEADS: tuple[HeadName, ...] = ("ctc", "mixer")  # one class per step along the width
EngineName = Literal["local", "ray"]
ResizeName = Literal["natural", "content", "pad", "stretch", "square"]

ALPHANUMERIC = "0-9A-Za-z"
STREAM_EPOCH = 50_000  # pictures of a stream between two measurements
WIDTH_STEP = 16  # pixels; where the input's width follows the picture, it is a multiple of this


@dataclass
class ModelConfig:
    """What a checkpoint says of its network; everything needed to build it again and to prepare its input."""

    name: ModelName
    """Architecture."""
    alphabet: str
    """The characters it reads, in the order of their class ids (1, 2, ...; 0 is blank or padding)."""
    max_length: int
    """Longest text it can write, in characters."""
    image_size: tuple[int, int]
    """(height, width) in pixels of the network's input; with `resize: natural` the least width."""
    other_height: int | None = None
    """A second height of the input that its weights have learned, for a second view of what is hard to read."""
    channels: int = 1
    """1: gray, 3: color."""
    resize: ResizeName = "pad"
    """How a picture comes to `image_size`: cut to its contents and as wide as they are, cut and stretched, padded in
    its shape, stretched, or padded to a square."""
    normalize: bool = False
    """Pictures are brought to dark letters on a light ground at full contrast, without a frame, and the margin that is
    left around their contents may lie beyond their edges."""
    soften: float = 0.0
    """What is read is blurred by a Gaussian of so many pixels of the input (its standard deviation). Those that were
    trained on are softer by themselves: they were warped, and resized to the width of others."""
    head: HeadName = "ctc"
    """One class per step along the width, for CTC: `ctc` (BiLSTM) or `mixer` (convolution and attention). One class
    per character position: `slots` (attention), `positions` (a classifier for each) or `combination` (symbols to
    positions)."""
    backbone: str = "residual"
    """Feature extractor: `residual`, `residual-wide`, `residual-even`, `residual-large`, `residual-deep`,
    `efficientnet-b0` (b0 to b7) or `resnet18`."""
    hidden: int = 128
    """Width of the head's hidden layer (of each LSTM direction for the CRNN)."""
    dropout: float = 0.1
    """Dropout probability before the classifier."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any], path: object = "the checkpoint") -> ModelConfig:
        """From a checkpoint's JSON, where tuples are lists; keys that this version does not know are left out.

        Args:
            values: may come from a stranger's file: each is checked by type and range.
            path: of the file, for messages.

        Raises:
            UserError: a value is missing, or cannot be used.
        """
        names = {field.name for field in fields(cls)}
        named = {OLD_KEYS.get(key, key): value for key, value in values.items()}
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in named.items() if k in names}
        try:
            config = cls(**known)
        except TypeError:
            missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in known]
            raise UserError(f"{path} cannot be used: its description of the model lacks {missing[0]!r}") from None
        for name, valid in MODEL_CHECKS.items():
            value = getattr(config, name)
            if not valid(value):
                raise UserError(f"{path} cannot be used: the model's {name} is {value!r:.60}")
        classes, places = len(config.alphabet) + 1, math.prod(config.image_size) // 64
        per_class = {"positions": config.max_length * config.hidden, "combination": places}
        if per_class.get(config.head, config.hidden) * classes > MAX_WEIGHTS:
            raise UserError(f"{path} cannot be used: the head that it describes has more than {MAX_WEIGHTS:,} weights")
        return config


def _whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


OLD_KEYS = {"normalise": "normalize"}  # of a checkpoint's description -> the setting that it is now
MAX_WEIGHTS = 2**27  # of a head, to read a checkpoint
MAX_SOFTEN = 4.0  # pixels
# What a checkpoint may say of its network. The limits are far above all that is of use, and keep a hostile file from
# asking for more memory than there is.
MODEL_CHECKS: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: value in get_args(ModelName),
    "alphabet": lambda value: isinstance(value, str) and 1 <= len(value) <= 30_000,
    "max_length": _whole(1, 1000),
    "image_size": lambda value: (
        isinstance(value, tuple)
        and len(value) == 2
        and all(_whole(1, 4096)(side) for side in value)
        and value[0] * value[1] <= 2**19
    ),
    "other_height": lambda value: value is None or _whole(1, 1024)(value),
    "channels": lambda value: type(value) is int and value in (1, 3),
    "resize": lambda value: value in get_args(ResizeName),
    "normalize": lambda value: isinstance(value, bool),
    "soften": lambda value: type(value) in (int, float) and 0 <= value <= MAX_SOFTEN,
    "head": lambda value: value in get_args(HeadName),
    "backbone": lambda value: isinstance(value, str) and len(value) <= 40,
    "hidden": _whole(1, 2048),
    "dropout": lambda value: type(value) in (int, float) and 0 <= value <= 1,
}


@dataclass
class TrainConfig:
    """Settings of `main.py`."""

    data: list[str] | str = "data"
    """A folder made by make_dataset.py, or any source that make_dataset.py takes. Without data there, a synthetic set
    is generated."""
    out: str | None = None
    """Run folder; saved_models/<model>-<date>-<time> by default."""
    model: ModelName = "mixer"
    """Architecture."""
    init: str = "auto"
    """Starting weights: `auto` (the shipped weights where they fit the model, else scratch), `scratch`, `imagenet`
    (backbone only), or the path of a checkpoint."""
    teacher: str | None = None
    """Checkpoint of a larger model with the same alphabet and input, whose class probabilities for each column are
    learned beside the labels (distillation; CTC heads alone)."""
    teacher_weight: float = 0.5
    """Share of the loss that the teacher has; the labels have the rest. Below 1."""
    resume: bool = False
    """Go on with the run in `out` exactly where it was stopped, with the configuration saved there."""

    alphabet: str | None = None
    """Characters to read, ranges allowed (`0-9a-z`); by default all characters of the labels, of every split."""
    max_length: int | None = None
    """Longest text (slot heads only); by default as long as the longest label, of every split."""
    image_size: tuple[int, int] | None = None
    """[height, width] of the network's input; chosen from the pictures' shapes by default."""
    height: int | None = None
    """Rows of the input, for `natural` inputs and CTC heads, whose trained weights go on at any height: more rows show
    more and take longer. Other models keep theirs, and `image_size` decides where it is given."""
    other_height: int | None = None
    """Height that every second picture of a batch has instead, for `natural` inputs and CTC heads: a second view of
    what the model is unsure of has this height, and its weights serve to start models of either."""
    other_height_from: float = 0.0
    """Share of a training on a stream (`pictures`) that is over before `other_height` counts: until then all pictures
    have one height, which is quicker to learn. Below 1."""
    channels: Literal[1, 3] | None = None
    """1: gray, 3: color. Default: the model's own."""
    resize: ResizeName | None = None
    """`pad` keeps the picture's shape, `stretch` does not, `content` cuts off empty borders and stretches the rest,
    `natural` cuts them off and gives wide contents a wide input (for networks that read along the width), `square` pads
    to a square. Default: the model's own."""
    normalize: bool | None = None
    """Bring pictures to dark letters on a light ground at full contrast, without a frame, and leave a margin around
    their contents that may lie beyond their edges. Default: the model's own."""
    soften: float | None = None
    """Blur what is read by a Gaussian of so many pixels of the input (its standard deviation), at most 4: what is
    trained on is softer by itself. Default: the model's own."""
    head: HeadName | None = None
    """`ctc`, `mixer`, `slots`, `positions` or `combination`; any goes with any backbone. Default: the model's own."""
    backbone: str | None = None
    """Another feature extractor than the model's own: `residual`, `residual-wide`, `residual-even`,
    `residual-large`, `residual-deep`, `resnet18` or `efficientnet-b0` to `-b7`."""
    hidden: int | None = None
    """Width of the head's hidden layer."""
    dropout: float = 0.1
    """Dropout probability before the classifier."""

    synthetic_count: int = 4000
    """Synthetic captchas to generate where there is no data."""
    synthetic_style: str = "classic,line"
    """Styles of the synthetic captchas, comma-separated."""
    pictures: int | None = None
    """Train on a stream of so many fresh synthetic captchas, none of which comes twice, instead of on `data`. It is
    validated and tested on captchas of `held_out_style`, and ends with an .onnx file and a model card, too."""
    synthetic_length: str = "3-10"
    """Characters of the captchas of the stream, one number or a range."""
    held_out_style: str = "heldout"
    """Styles that a training on a stream is validated and tested on, comma-separated."""
    fonts: str | None = None
    """Folder of fonts for the captchas of the stream, beside matplotlib's; `recipe` are those of the shipped reader,
    which `captcha_generator.py --check_fonts` helps to install."""
    mix_synthetic: float = 0.0
    """Synthetic pictures added to each epoch, as a share of the training set (0.5: one for every two real ones)."""
    synthetic_weight: float = 1.0
    """Weight of such a picture in the loss; that of a labeled one is 1."""
    splice: float = 0.0
    """Probability that a labeled picture is spliced: cut between characters, the left part of one joined to the right
    part of another. The starting weights find the cuts, so it takes trained ones, and a CTC head."""
    split: str | None = None
    """Train/validation/test percentages or numbers of pictures, where `data` is not split yet; by default 80/10/10, or
    the folders train/, val/ and test/ of the data as they are."""
    blend: float | None = 1.0
    """Interpolation weight between the starting weights (0) and the fine-tuned ones (1), as in WiSE-FT: few labels also
    teach what other pictures of their scheme do not have. `null` goes by the number of labels: 0.75 for 50, 0.9 for
    300. With `folds`, another one is taken where it clearly reads better."""
    limit: int | None = None
    """Train on at most this many labeled pictures (a seeded choice)."""
    augment: float = 1.0
    """Strength of the training augmentation: 0 is none, 1 the default."""
    shear: float = 0.1
    """Largest horizontal shear of training pictures, to either side, as a share of their height, where `augment` is 1.
    Beyond 0.35 in all, letters at the ends are cut off."""

    frozen_epochs: int = 2
    """Epochs with the backbone frozen; skipped where its weights are not pretrained."""
    epochs: int | None = None
    """Epochs of the whole network. By default from scratch so many that it sees about 40,000 pictures, within 8 and 60;
    from trained weights fewer: pictures seen grow with the root of the number of labels, and up to 5,000 labels are
    seen 16 times at least."""
    batch_size: int = 64
    """Pictures per optimizer step, over all processes together."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    """Optimizer of both phases."""
    frozen_learning_rate: float = 2e-3
    """Peak learning rate while the backbone is frozen."""
    learning_rate: float | None = None
    """Peak learning rate of the whole network; by default 0.003 from scratch, and 0.001 from trained weights, which a
    higher one would spoil at first."""
    weight_decay: float = 1e-2
    """Weight decay (AdamW) or L2 penalty (Adam)."""
    schedule: Literal["onecycle", "cosine", "plateau", "constant", "wsd"] = "onecycle"
    """Learning-rate schedule of each phase; `plateau` is ReduceLROnPlateau on the validation CER, `wsd` a warm-up, a
    stable rate, and a decay to zero over the last fifth (warmup-stable-decay)."""
    average: float = 0.0
    """Share of the last phase, at its end, over whose steps the weights are averaged (stochastic weight averaging: it
    takes the place of lowering the rate, so use it with `schedule: constant`). Below 1; 0 keeps the last weights."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights over all steps of the whole network, 0.999 for instance
    (less after few steps, which have little to average); the average is what is kept. Below 1; 0 keeps the last
    weights."""
    warmup: float = 0.1
    """Share of a phase in which OneCycle and cosine warm up; `wsd` does in so much of its first 100,000 pictures."""
    flat_start: int = 0
    """So many pictures at the beginning of a training from scratch teach a CTC head that letters lie evenly along the
    picture, which is soon learned: first readings come sooner than with CTC alone, which finds out from the beginning
    that they lie anywhere."""
    clip_norm: float = 5.0
    """Gradient norm is clipped to this; 0 switches clipping off."""
    patience: int = 0
    """Stop after this many epochs without better weights (validation sequence accuracy, then loss); 0: never."""
    seed: int = 0
    """Seed of split, weights, order and augmentation."""

    threads: int | None = None
    """CPU threads; all available cores by default."""
    workers: int = 0
    """Processes that load pictures; 0 loads in the main process."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Arithmetic of the forward pass."""
    cpu: bool = False
    """Use the CPU even where there is a GPU."""
    save_every: int = 1
    """Epochs between saves of the training state; the last epoch is always saved, and within long epochs it is saved
    every five minutes."""
    stop_after: float | None = None
    """Stop after this many seconds of training, with the state saved: `--resume` goes on. The exit code is 75 then."""
    progress: Literal["bar", "json", "none"] = "bar"
    """`bar`: lines and a progress bar. `json`: one JSON object a line on stdout, for programs. `none`: silence."""
    tracker: Literal["none", "mlflow", "tensorboard", "trackio"] = "none"
    """Experiment tracker (install it first)."""
    evaluate: bool = True
    """Evaluate on the test split at the end and draw the pictures."""
    folds: int = 0
    """Where there is no test split: also train this many models, each without a part of the labels, and measure them on
    that part (k-fold cross-validation), to say what accuracy to expect. All labels still serve to train the model
    itself. With 150 labels or more, fewer models are enough."""


@dataclass
class GeneratorConfig:
    """Settings of `captcha_generator.py`."""

    out: str = "data/synthetic"
    """Folder for the parquet shards."""
    count: int = 10_000
    """Number of captchas."""
    style: str = "classic"
    """Style, or several, comma-separated: they take turns. `schemes` draws another for every picture, `rare` one with
    some odd idea; a .yaml file describes a captcha of your own."""
    alphabet: str | None = None
    """Characters to draw from; ranges allowed (`0-9a-z`). By default those of your own style, else `0-9A-Za-z`."""
    length: str | None = None
    """Number of characters, one number or a range. By default that of your own style, else `4-8`."""
    fonts: str | None = None
    """Folder of .ttf/.otf fonts used beside matplotlib's."""
    seed: int = 0
    """Image i of a seed is the same bytes for any number of workers."""
    workers: int | None = None
    """Processes; all available cores by default."""
    shard_size: int = 10_000
    """Captchas per parquet shard."""
    engine: EngineName = "local"
    """`local`: processes of this machine draw one shard together; `ray`: each worker of a Ray cluster draws its own.
    The shards are the same."""
    grid: str | None = None
    """Also draw the first 100 captchas as a 10x10 grid into this file."""
    pictures: str | None = None
    """Also write the captchas as picture files, with their labels in labels.csv, into this empty or new folder."""
    list: bool = False
    """Only print every op and every style, a line each."""
    check_fonts: bool = False
    """Only print which font packages of the recipe are missing, and the command that installs them."""


@dataclass
class DatasetConfig:
    """Settings of `make_dataset.py`."""

    sources: list[str]
    """Parquet files, folders of shards, image folders, or hub:OWNER/NAME."""
    out: str = "data/dataset"
    """Folder for the dataset."""
    split: str | None = None
    """Train/validation/test percentages (`70/30`: no validation), or numbers of pictures (`550/120/400`). By default
    the sources' own folders or shards of that name, where they have them, else 80/10/10."""
    seed: int = 0
    """Seed of the split."""
    alphabet: str | None = None
    """Characters a label may have (ranges allowed); every printable character by default."""
    check: Literal["pixels", "bytes"] = "pixels"
    """`pixels`: decode every picture; two with the same pixels are one. `bytes`: for pictures that a program has just
    written; look at the header alone and find duplicates by the bytes of the files, several times as fast."""
    max_length: int = 32
    """Longest label kept."""
    limit: int | None = None
    """Read at most this many samples from each source."""
    shard_size: int = 50_000
    """Rows per parquet shard."""
    workers: int | None = None
    """Processes that check pictures; all available cores by default."""
    overwrite: bool = False
    """Replace a dataset in `out` that was made of other sources, or with `merge` the file there."""
    merge: bool = False
    """Merge the shards into the single parquet file `out`, unsplit and unchecked."""


@dataclass
class EvaluateConfig:
    """Settings of `accuracy_calculator.py`."""

    data: list[str] | str = "data"
    """A folder made by make_dataset.py, or any source that it takes; by default what main.py made last of data/."""
    checkpoint: str | None = None
    """A .safetensors or .onnx file, or the folder of a run; the shipped weights by default."""
    split: Literal["train", "validation", "test", "all"] | None = None
    """Which split to measure: `test` where the data is split, else all of it."""
    limit: int | None = None
    """Measure on at most this many pictures (a seeded choice)."""
    find_label_errors: bool = False
    """Rank the labels that are probably wrong instead, by cross-validation over all pictures of `data` (all splits,
    unless `split` names one)."""
    folds: int = 5
    """With --find_label_errors: into how many parts the data is cut. Each is read by a model trained on the others."""
    epochs: int | None = None
    """With --find_label_errors: epochs of the whole network in each fold; by default as many as fine-tuning takes."""
    show: int = 30
    """With --find_label_errors: how many of the most suspicious labels are printed and drawn."""
    characters: str | None = None
    """Characters that occur in the texts, ranges allowed (`0-9`, `0-9A-F`): others are not read."""
    length: str | None = None
    """Number of characters of the texts, `6` or `4-6`."""
    ignore_case: bool = False
    """Read both cases of a letter as one, and compare so: the answer is in lower case, except for letters that
    `characters` has in one case only."""
    upper_case: bool = False
    """With `ignore_case`: the answer is in upper case."""
    same_source: bool = False
    """The pictures are of one source: the lengths and characters of its texts are estimated from all readings (not from
    the labels), and each picture is read with that in mind."""
    alike: str | None = None
    """Characters that a font draws alike, such as 0O or 0Oo,1Il (a comma between groups): the accuracy is also reported
    with each group counted as one character."""
    tta_views: int = 8
    """Views of one picture that are read, 1 to 8, at most: an unsure reading is tried again with other views (test-time
    augmentation). Fewer are faster."""
    batch_size: int = 64
    """Pictures per forward pass."""
    threads: int | None = None
    """CPU threads; all available cores by default."""
    device: str | None = None
    """`cpu`, `cuda`, ...; the best available by default."""
    json: str | None = None
    """Write the report to this JSON file."""
    csv: str | None = None
    """With --find_label_errors: write all labels, the most suspicious first, to this CSV file."""
    plots: str | None = None
    """Draw the pictures into this folder."""


@dataclass
class PredictConfig:
    """Settings of `predict.py`."""

    images: list[str]
    """Image files and folders of them; with `out`, parquet shards and folders of them."""
    checkpoint: str | None = None
    """A .safetensors or .onnx file, or the folder of a run; the shipped weights by default."""
    json: bool = False
    """Print JSON lines: `file`, and `text`, `confidence` and `characters`, or `error`."""
    csv: str | None = None
    """Write the readings to this CSV file."""
    grid: str | None = None
    """Draw pictures and readings into this PNG file."""
    characters: str | None = None
    """Characters that occur in the texts, ranges allowed (`0-9`, `0-9A-F`): others are not read."""
    length: str | None = None
    """Number of characters of the texts, `6` or `4-6`."""
    ignore_case: bool = False
    """Read both cases of a letter as one: the answer is in lower case, except for letters that `characters` has in one
    case only."""
    upper_case: bool = False
    """With `ignore_case`: the answer is in upper case."""
    same_source: bool = False
    """The pictures are of one source: the lengths and characters of its texts are estimated from all readings, and each
    picture is read with that in mind."""
    labels: str | None = None
    """Write the pictures that are read surely, with their readings as labels, into this parquet file, to train on."""
    sure: float = 0.3
    """With `labels`: least confidence, 0 to 1, of a reading that serves as a label. Many, some of them wrong, teach
    more than a few that are right."""
    out: str | None = None
    """Read parquet shards instead of image files, into shards of readings in this folder."""
    engine: EngineName = "local"
    """With `out`: `local` reads one shard after the other here, `ray` many at a time on a Ray cluster."""
    tta_views: int = 8
    """Views of one picture that are read, 1 to 8, at most: an unsure reading is tried again with other views (test-time
    augmentation). Fewer are faster."""
    batch_size: int = 64
    """Pictures per forward pass."""
    threads: int | None = None
    """CPU threads; all available cores by default."""
    device: str | None = None
    """`cpu`, `cuda`, ...; the best available by default."""


@dataclass
class ExportConfig:
    """Settings of `export_model.py`."""

    checkpoint: str | None = None
    """A .safetensors file; the shipped weights by default."""
    out: str | None = None
    """File to write; the checkpoint's name with the format's suffix by default."""
    format: Literal["onnx"] = "onnx"
    """Format to write."""
    data: str | None = None
    """Pictures for the parity check, any source that make_dataset.py takes; the examples/ by default."""
    tolerance: float = 1e-3
    """Largest difference allowed between the two runtimes' log-probabilities, where these are above -10."""


@dataclass
class InterfaceConfig:
    """Settings of `interface.py`."""

    checkpoint: str | None = None
    """The model shown first; by default the `reader` in the folder below, or else its newest."""
    models: str | None = None
    """Folder whose checkpoints are offered and where taught ones go; saved_models/ by default."""
    data: str | None = None
    """Folder for corrected readings (`feedback`) and for a training that runs; data/ by default."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 7860
    """Port to listen on."""
    threads: int | None = None
    """CPU threads; all available cores by default."""
    queue: int = 256
    """Pictures sent to the route that may wait for their reading; more are refused (503)."""
    batch: int = 32
    """Pictures that are read together at most, where requests arrive together."""
    root_path: str = ""
    """Path that a reverse proxy serves this under, such as /captcha, or the whole address, https://NAME/captcha."""
    allow_origin: list[str] | str | None = None
    """Another site whose pages may call this server, such as https://example.org, or several as a JSON list; none by
    default."""
    read_only: bool = False
    """No fine-tuning, no corrections kept, no download of models."""
    token: str | None = None
    """What visitors must know: programs send it as `Authorization: Bearer TOKEN`, browsers are asked for it once. In a
    YAML file (--config) it is not seen among the processes."""
    max_request_mb: int = 20
    """Megabytes of one request to the route."""
    max_upload_mb: int = 50
    """Megabytes of one file uploaded to the page."""
    max_disk_mb: int = 1000
    """Megabytes of all uploads that are kept at a time, for an hour at most."""
    max_megapixels: int = 16
    """Million pixels of one picture, all its frames together; a request has four times as many."""
    max_connections: int = 400
    """Connections from one address, of twice as many in all."""
    max_waiting: int = 200
    """Pictures of one address that may wait on the route, of `queue` in all."""
    max_seconds: float = 30.0
    """Seconds that one reading may take; a model that takes longer is not asked again."""


@dataclass
class StrengthConfig:
    """Settings of `strength.py`."""

    data: list[str] | str | None = None
    """Labeled captchas in any layout that make_dataset.py takes."""
    style: str | None = None
    """Instead of data: a style of the generator, by name or as a YAML file. Its ops are then varied one at a time,
    unless it is another style for every picture (`schemes`)."""
    unlabeled: bool = False
    """The data has no labels: say what can be said without."""
    characters: str | None = None
    """The characters that occur, if they are known: `0-9`, `0-9A-Z`."""
    length: str | None = None
    """The number of characters, if it is known: `5` or `4-6`."""
    ignore_case: bool = False
    """Upper and lower case are the same answer."""
    labels: str = "0,10,30,100,300"
    """Numbers of labels that an attacker may have, separated by commas."""
    budget: str = "10m"
    """The time that it may take: `90s`, `10m`, `1h`. What does not fit is left out, and the report says so."""
    seconds_per_label: float = 10.0
    """What typing a label takes a person, in seconds."""
    out: str = "report"
    """Folder of the report; what was measured there before is not measured again."""
    count: int = 400
    """With `style`: how many captchas are drawn."""
    tries: int = 100
    """With `style`: captchas for each variation of an op."""
    limit: int | None = None
    """Take at most this many captchas (a seeded choice)."""
    name: str | None = None
    """What the report calls the captcha; the name of the data or the style by default."""
    left_out: str | None = None
    """A JSON file {reason: number} of pictures that were left out before, to be told with the rest."""
    checkpoint: str | None = None
    """A .safetensors file to start from; the shipped weights by default."""
    epochs: int | None = None
    """Epochs of each training; by default as many as fine-tuning takes."""
    progress: Literal["bar", "json"] = "bar"
    """`bar`: lines and a progress bar. `json`: one JSON object a line on stdout, for programs."""
    seed: int = 0
    """Of the choice of pictures and of the training."""
    threads: int | None = None
    """CPU threads; by default all available cores to read, and one to train, which small batches gain little from."""
