"""Backbones, heads, and the checkpoint file.

A model is a backbone, pictures to a feature map (N, D, h, w), and a head, feature map to logits (N, T, C). Any head
goes with any backbone; `MODELS` names the usual pairs:

| name | backbone | head |
|---|---|---|
| `mixer` | small residual network, width stride 4 | columns mixed by convolution and attention, CTC |
| `crnn` | small residual network, width stride 4 | BiLSTM over the width, CTC |
| `efficientnet` | EfficientNet (efficientnet-pytorch) | one attention slot per character position |
| `resnet` | ResNet-18 (torchvision) | one classifier per character position |
| `lacc` | EfficientNet | label-combination classifier |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captcha_reader.checkpoint import CHECKPOINT_FORMAT, load_weights, read_metadata, save_checkpoint  # noqa: F401
from captcha_reader.config import CTC_HEADS, WIDTH_STEP, HeadName, ModelConfig, ResizeName
from captcha_reader.errors import UserError
from captcha_reader.text import Alphabet, build_codec
from captcha_reader.transfer import Transfer, adapt_rows, blend, load_into  # noqa: F401

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What a model name stands for where the user does not say."""

    backbone: str
    head: HeadName
    channels: int
    height: int
    hidden: int
    resize: ResizeName = "pad"
    normalize: bool = False
    soften: float = 0.0


MODELS: dict[str, Defaults] = {
    "mixer": Defaults(
        "residual-even", "mixer", channels=3, height=48, hidden=160, resize="natural", normalize=True, soften=0.7
    ),
    "crnn": Defaults("residual", "ctc", channels=1, height=48, hidden=128),
    "efficientnet": Defaults("efficientnet-b0", "slots", channels=3, height=48, hidden=256),
    "resnet": Defaults("resnet18", "positions", channels=3, height=48, hidden=256),
    "lacc": Defaults("efficientnet-b0", "combination", channels=3, height=48, hidden=256),
}


# --------------------------------------------------------------------------------------------------------------------
# Backbones: (N, channels, H, W) in [-1, 1] or normalized, to (N, out_channels, h, w)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., 2016), stride (vertical, horizontal)."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != (1, 1):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResidualBackbone(nn.Module):
    """Small residual network that keeps the width: height stride 16, width stride 4.

    Args:
        config: of the model.
        stem: channels of the first convolution.
        stages: channels of the three stages. Multiples of 16 run fastest on processors with AVX-512 or AMX.
        blocks: residual blocks of each stage.
    """

    mean, std = (0.5,), (0.5,)

    def __init__(
        self, config: ModelConfig, stem: int, stages: tuple[int, int, int], blocks: tuple[int, int, int] = (1, 1, 1)
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(config.channels, stem, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(),
        ]
        inputs = stem
        for outputs, count, stride in zip(stages, blocks, ((2, 2), (2, 1), (2, 1)), strict=True):
            layers.append(ResidualBlock(inputs, outputs, stride))
            layers += [ResidualBlock(outputs, outputs, (1, 1)) for _ in range(count - 1)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.out_channels = inputs

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class EfficientNetBackbone(nn.Module):
    """EfficientNet's convolutions (Tan and Le, 2019) from efficientnet-pytorch, up to the last downsampling step.

    Two changes for text. The last stages, at stride 32, are left out: they see objects, not strokes, and hold most of
    the weights. And from the third downsampling step on only the height shrinks, so that four pixels make a column;
    at stride 32 a captcha of 200 pixels would have six columns for its characters. Strides are not weights, so
    ImageNet's weights still fit.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, config: ModelConfig) -> None:
        from efficientnet_pytorch import VALID_MODELS, EfficientNet

        super().__init__()
        if config.backbone not in VALID_MODELS:
            raise UserError(f"no backbone {config.backbone!r}: choose one of {', '.join(VALID_MODELS[:8])}")
        self.name = config.backbone
        # "Same" padding is computed for one input size. BatchNorm gets its usual momentum, for the package's own of
        # 0.01 is made for the long runs of ImageNet: after some hundred steps the running statistics would still lag
        # so far behind that evaluation reads nonsense.
        network = EfficientNet.from_name(
            config.backbone,
            image_size=list(config.image_size),
            include_top=False,
            batch_norm_momentum=0.9,
            drop_connect_rate=0.0,
        )
        network.set_swish(memory_efficient=False)  # the memory-efficient one cannot be exported
        halving = [i for i, block in enumerate(network._blocks) if block._depthwise_conv.stride[1] == 2]
        network._blocks = network._blocks[: halving[-1]]
        del network._conv_head, network._bn1
        for i in halving[1:-1]:
            _keep_width(network._blocks[i]._depthwise_conv)
        self.network = network
        self.out_channels = network._blocks[-1]._bn2.num_features

    def forward(self, images: Tensor) -> Tensor:
        x = images.expand(-1, 3, -1, -1)
        x = self.network._swish(self.network._bn0(self.network._conv_stem(x)))
        for block in self.network._blocks:
            x = block(x)
        return x

    def load_imagenet(self) -> None:
        """Download and load ImageNet weights."""
        from efficientnet_pytorch import EfficientNet

        weights = EfficientNet.from_pretrained(self.name, include_top=False).state_dict()
        self.network.load_state_dict({name: weights[name] for name in self.network.state_dict()})


class ResNetBackbone(nn.Module):
    """torchvision's ResNet-18 (He et al., 2016) without its classifier; its last two downsampling steps shrink the
    height only, so that eight pixels make a column."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, config: ModelConfig) -> None:
        from torchvision.models import resnet18

        super().__init__()
        network = resnet18(weights=None)
        network.fc = nn.Identity()
        for layer in (network.layer3, network.layer4):
            _keep_width(layer[0].conv1)
            _keep_width(layer[0].downsample[0])
        self.network = network
        self.out_channels = 512

    def forward(self, images: Tensor) -> Tensor:
        net = self.network
        x = net.maxpool(net.relu(net.bn1(net.conv1(images.expand(-1, 3, -1, -1)))))
        return net.layer4(net.layer3(net.layer2(net.layer1(x))))

    def load_imagenet(self) -> None:
        """Download and load ImageNet weights."""
        from torchvision.models import ResNet18_Weights, resnet18

        weights = resnet18(weights=ResNet18_Weights.IMAGENET1K_V1).state_dict()
        self.network.load_state_dict({name: weights[name] for name in self.network.state_dict()})


def _keep_width(convolution: nn.Conv2d) -> None:
    """Let a convolution of stride 2 shrink the height only."""
    convolution.stride = (2, 1)
    padding = getattr(convolution, "static_padding", None)
    if isinstance(padding, nn.ZeroPad2d):  # efficientnet-pytorch's "same" padding, which depends on the stride
        _, _, top, bottom = padding.padding
        extra = convolution.kernel_size[1] - 1
        convolution.static_padding = nn.ZeroPad2d((extra // 2, extra - extra // 2, top, bottom))


BACKBONES: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "residual": partial(ResidualBackbone, stem=24, stages=(40, 64, 112)),
    "residual-wide": partial(ResidualBackbone, stem=24, stages=(48, 72, 128)),
    "residual-even": partial(ResidualBackbone, stem=32, stages=(48, 80, 128)),
    "residual-large": partial(ResidualBackbone, stem=32, stages=(64, 96, 160)),
    "residual-deep": partial(ResidualBackbone, stem=32, stages=(64, 96, 160), blocks=(1, 2, 2)),
    "resnet18": ResNetBackbone,
}


def build_backbone(config: ModelConfig) -> nn.Module:
    """The backbone that `config.backbone` names.

    Raises:
        UserError: no such backbone.
    """
    if config.backbone.startswith("efficientnet"):
        return EfficientNetBackbone(config)
    if config.backbone not in BACKBONES:
        raise UserError(f"no backbone {config.backbone!r}: choose {', '.join(BACKBONES)} or efficientnet-b0 to -b7")
    return BACKBONES[config.backbone](config)


# --------------------------------------------------------------------------------------------------------------------
# Heads: feature map (N, D, h, w) to logits (N, T, C). `class_axes` names the parameters that have a row per class,
# and the axis it lies on, so that weights can move to another alphabet.


class CTCHead(nn.Module):
    """Columns of the feature map through a bidirectional LSTM, one class per column (Shi et al., 2015)."""

    class_axes: ClassVar[dict[str, int]] = {"classifier.weight": 0, "classifier.bias": 0}

    def __init__(self, features: tuple[int, int, int], config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        depth, height, width = features
        self.steps = width
        # Full-height kernels: each column of the map becomes one vector.
        self.reduce = nn.Conv2d(depth, config.hidden, (height, 1), bias=False)
        self.norm = nn.BatchNorm2d(config.hidden)
        self.lstm = nn.LSTM(config.hidden, config.hidden, bidirectional=True, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(3 * config.hidden, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        columns = F.relu(self.norm(_join_rows(self.reduce, features))).squeeze(2).transpose(1, 2)  # (N, w, hidden)
        sequence, _ = self.lstm(columns)  # (N, w, 2*hidden)
        # The columns also go past the LSTM: through it alone, CTC takes many times as long to leave "all blank".
        return self.classifier(self.dropout(torch.cat([columns, sequence], dim=2)))


class MixerHead(nn.Module):
    """Columns of the feature map, mixed with their neighbors by convolution and with all others by attention.

    A recurrent network sees the same, but step by step: on a CPU it takes half of the training time. After SVTR
    (Du et al., 2022, arXiv:2205.00159), which mixes locally and globally in turn.

    Raises:
        UserError: the hidden width cannot be shared out among the attention heads.
    """

    class_axes: ClassVar[dict[str, int]] = {"classifier.weight": 0, "classifier.bias": 0}

    def __init__(self, features: tuple[int, int, int], config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        depth, height, width = features
        self.steps = width
        self.reduce = nn.Conv2d(depth, config.hidden, (height, 1), bias=False)
        self.norm = nn.BatchNorm2d(config.hidden)
        kinds = (LocalMixing, GlobalMixing, LocalMixing, LocalMixing)
        self.mix = nn.Sequential(*[kind(config.hidden) for kind in kinds])
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        columns = F.relu(self.norm(_join_rows(self.reduce, features))).squeeze(2)  # (N, hidden, w)
        return self.classifier(self.dropout(self.mix(columns).transpose(1, 2)))


def _join_rows(reduce: nn.Conv2d, features: Tensor) -> Tensor:
    """Each column of a feature map (N, D, h, w) as one vector, (N, hidden, 1, w), for any h: see `adapt_rows`."""
    rows, known = features.shape[2], reduce.kernel_size[0]
    if isinstance(rows, torch.SymInt):  # a graph of any h is exported: the same by means of the rows
        return reduce(features.repeat_interleave(known, 2).unflatten(2, (known, rows)).mean(3))
    return reduce(features) if rows == known else F.conv2d(features, adapt_rows(reduce.weight, rows))


class LocalMixing(nn.Module):
    """Columns and their neighbors, up to four on each side: (N, D, w) to the same."""

    def __init__(self, width: int, reach: int = 4) -> None:
        super().__init__()
        # The British name stands in the shipped weights.
        self.neighbours = nn.Conv1d(width, width, 2 * reach + 1, padding=reach, groups=width, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.expand = nn.Conv1d(width, 2 * width, 1)
        self.shrink = nn.Conv1d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shrink(F.relu(self.expand(self.norm(self.neighbours(x)))))


class GlobalMixing(nn.Module):
    """Self-attention over all columns: (N, D, w) to the same. What a letter is may show in how the others look.

    Raises:
        UserError: the width is no multiple of the number of heads.
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"--hidden is {width}: with the head mixer it must be a multiple of {heads}")
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, width, steps = x.shape
        columns = self.project(self.norm(x.transpose(1, 2)))  # (N, w, 3D)
        # Not F.scaled_dot_product_attention: on a CPU its backward pass makes a training step a tenth slower.
        columns = columns.view(n, steps, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).contiguous()
        query, key, value = columns.unbind(0)  # each (N, heads, w, D / heads)
        weights = (query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1)  # (N, heads, w, w)
        mixed = (weights @ value).transpose(1, 2).reshape(n, steps, width)
        return x + self.out(mixed).transpose(1, 2)


class SlotHead(nn.Module):
    """One learned query per character position attends over the feature map; the positions share one classifier.

    Sharing lets every character of every label teach the same classifier, whatever its position.
    """

    class_axes: ClassVar[dict[str, int]] = {"classifier.weight": 0, "classifier.bias": 0}

    def __init__(self, features: tuple[int, int, int], config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        depth, height, width = features
        self.steps = config.max_length
        self.reduce = nn.Linear(depth, config.hidden)
        self.places = nn.Parameter(0.02 * torch.randn(height * width, config.hidden))
        self.queries = nn.Parameter(torch.randn(config.max_length, config.hidden))
        self.keys = nn.Linear(config.hidden, config.hidden)
        self.prior = nn.Parameter(_reading_order(config.max_length, height, width))
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = self.build_classifier(config, num_classes)
        self.scale = config.hidden**-0.5

    def build_classifier(self, config: ModelConfig, num_classes: int) -> nn.Module:
        """(N, L, hidden) to (N, L, C)."""
        return nn.Linear(config.hidden, num_classes)

    def attend(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D, h, w) to the places' features (N, P, hidden) and each slot's attention to them (N, L, P)."""
        cells = self.reduce(features.flatten(2).transpose(1, 2)) + self.places
        scores = self.queries @ self.keys(cells).transpose(1, 2) * self.scale + self.prior
        return cells, scores.softmax(-1)

    def forward(self, features: Tensor) -> Tensor:
        cells, attention = self.attend(features)
        return self.classifier(self.dropout(F.gelu(attention @ cells)))


def _reading_order(length: int, height: int, width: int) -> Tensor:
    """Where slot i of `length` starts to look, (length, height * width): a bell around its share of the width.

    Slots that start all over the picture need many epochs to part from each other.
    """
    slots = (torch.arange(length) + 0.5).unsqueeze(1) / length
    columns = ((torch.arange(width) + 0.5) / width).unsqueeze(0)
    bell = -0.5 * ((slots - columns) * length) ** 2
    return bell.repeat(1, height)


class PositionHead(SlotHead):
    """As `SlotHead`, but with a classifier of its own for each character position, the classical captcha network."""

    class_axes: ClassVar[dict[str, int]] = {"classifier.weights": 2, "classifier.biases": 1}

    def build_classifier(self, config: ModelConfig, num_classes: int) -> nn.Module:
        """(N, L, hidden) to (N, L, C)."""
        return PositionClassifiers(config.max_length, config.hidden, num_classes)


class PositionClassifiers(nn.Module):
    """`length` linear classifiers side by side, (N, length, hidden) to (N, length, C)."""

    def __init__(self, length: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(length, hidden, num_classes) * hidden**-0.5)
        self.biases = nn.Parameter(torch.zeros(length, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nld,ldc->nlc", x, self.weights) + self.biases


class CombinationHead(nn.Module):
    """Label-combination classifier: image places to symbols, then symbols to character positions, all at once.

    A learned (places x classes) matrix gathers for every symbol the features of the places that may show it; a small
    network then tells at which positions that symbol stands. The result, read the other way round, is one
    distribution over the symbols for every position.
    """

    class_axes: ClassVar[dict[str, int]] = {"places_to_symbols": 1, "symbol_bias": 0}

    def __init__(self, features: tuple[int, int, int], config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        depth, height, width = features
        self.steps = config.max_length
        places = height * width
        self.reduce = nn.Linear(depth, config.hidden)
        self.places = nn.Parameter(0.02 * torch.randn(places, config.hidden))
        self.places_to_symbols = nn.Parameter(torch.randn(places, num_classes) * places**-0.5)
        self.symbol_bias = nn.Parameter(torch.zeros(num_classes, config.hidden))
        self.mix = nn.Sequential(nn.LayerNorm(config.hidden), nn.Linear(config.hidden, config.hidden), nn.SiLU())
        self.dropout = nn.Dropout(config.dropout)
        self.symbols_to_positions = nn.Linear(config.hidden, config.max_length)

    def forward(self, features: Tensor) -> Tensor:
        cells = F.silu(self.reduce(features.flatten(2).transpose(1, 2)) + self.places)  # (N, P, hidden)
        symbols = self.places_to_symbols.t() @ cells + self.symbol_bias  # (N, C, hidden)
        return self.symbols_to_positions(self.dropout(self.mix(symbols))).transpose(1, 2)  # (N, L, C)


HEADS: dict[str, type[nn.Module]] = {
    "ctc": CTCHead,
    "mixer": MixerHead,
    "slots": SlotHead,
    "positions": PositionHead,
    "combination": CombinationHead,
}


# --------------------------------------------------------------------------------------------------------------------
# Models


class CaptchaModel(nn.Module):
    """Backbone and head behind one interface.

    Attributes:
        config: what a checkpoint needs to build the model again.
        alphabet: the characters it reads.
        codec: turns labels into targets and log-probabilities into readings.
        steps: T, columns (CTC; more of them for a picture that is wider) or character positions (the other heads).

    Raises:
        UserError: the configuration names no known part.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.head not in HEADS:
            raise UserError(f"no head {config.head!r}: choose one of {', '.join(HEADS)}")
        if config.resize == "natural":
            if config.head not in CTC_HEADS:
                raise UserError(f"the head {config.head!r} takes one width only: use another --resize than natural")
            if config.image_size[1] % WIDTH_STEP:
                raise UserError(
                    f"--image_size {list(config.image_size)} does not go with --resize natural: widths are "
                    f"multiples of {WIDTH_STEP} there"
                )
        self.config = config
        self.alphabet = Alphabet(config.alphabet)
        self.codec = build_codec(config.head, self.alphabet)
        self.backbone = build_backbone(config)
        shape = self._feature_shape()
        self.head = HEADS[config.head](shape, config, self.alphabet.num_classes)
        self.steps: int = self.head.steps
        mean, std = torch.tensor(self.backbone.mean), torch.tensor(self.backbone.std)
        self.register_buffer("mean", 255 * mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * std.view(1, -1, 1, 1), persistent=False)

    def _feature_shape(self) -> tuple[int, int, int]:
        training = self.backbone.training
        with torch.no_grad():
            features = self.backbone.eval()(torch.zeros(1, self.config.channels, *self.config.image_size))
        self.backbone.train(training)
        return cast(tuple[int, int, int], tuple(features.shape[1:]))

    def forward(self, images: Tensor) -> Tensor:
        """Pixels (N, channels, H, W), 0 to 255, of any number type, to logits (N, T, C)."""
        return self.head(self._features(images))

    def _features(self, images: Tensor) -> Tensor:
        return self.backbone((images.float() - self.mean) / self.std)

    def attention(self, images: Tensor) -> Tensor | None:
        """How much each character position looks at each column, (N, L, w); None for heads without slots."""
        if not isinstance(self.head, SlotHead):
            return None
        features = self._features(images)
        return self.head.attend(features)[1].unflatten(-1, features.shape[2:]).sum(2)

    def log_probs(self, images: Tensor) -> Tensor:
        """As `forward`, normalized over C, float32."""
        return self(images).float().log_softmax(-1)

    def losses(self, logits: Tensor, texts: Iterable[str], label_smoothing: float = 0.0) -> Tensor:
        """Loss of each sample, (N,).

        CTC: negative log-likelihood over the label's length. Other heads: mean cross-entropy over the positions.

        Args:
            logits: (N, T, C).
            texts: N labels, all of which T can write.
            label_smoothing: of the cross-entropy.
        """
        return self.codec.loss(logits, texts, label_smoothing)


class CNNModel(CaptchaModel):
    """EfficientNet features; all characters' classes in one forward pass, padded to the maximum length."""


class CRNN(CaptchaModel):
    """Convolutions, a bidirectional LSTM over the width, CTC (Shi et al., 2015, arXiv:1507.05717)."""


class Mixer(CaptchaModel):
    """Convolutions, columns mixed by convolution and attention, CTC: the model of the shipped reader."""


class ResNetModel(CaptchaModel):
    """ResNet-18 with one classifier per character position."""


class LACC(CaptchaModel):
    """EfficientNet features and the label-combination classifier."""


MODEL_CLASSES: dict[str, type[CaptchaModel]] = {
    "mixer": Mixer,
    "crnn": CRNN,
    "efficientnet": CNNModel,
    "resnet": ResNetModel,
    "lacc": LACC,
}


def build_model(config: ModelConfig) -> CaptchaModel:
    """A new model with random weights.

    Raises:
        UserError: the configuration names no known model or part.
    """
    if config.name not in MODEL_CLASSES:
        raise UserError(f"no model {config.name!r}: choose one of {', '.join(MODEL_CLASSES)}")
    return MODEL_CLASSES[config.name](config)


def set_requires_grad(module: nn.Module, requires_grad: bool) -> None:
    """Freeze (False) or release (True) all parameters of a module. See `train_mode` for its BatchNorm statistics."""
    for parameter in module.parameters():
        parameter.requires_grad = requires_grad


def train_mode(model: CaptchaModel) -> None:
    """Training mode for whatever is trained: a frozen backbone stays in evaluation mode, for BatchNorm would
    otherwise go on changing its running statistics."""
    model.train()
    if not any(parameter.requires_grad for parameter in model.backbone.parameters()):
        model.backbone.eval()


def count_parameters(model: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())


# --------------------------------------------------------------------------------------------------------------------
# Checkpoints


def load_model(path: str | Path, device: str | torch.device = "cpu") -> CaptchaModel:
    """The model of a checkpoint, in evaluation mode.

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint of this project.
    """
    model = build_model(ModelConfig.from_json(read_metadata(path)["model"], path))
    try:
        model.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise UserError(f"the weights in {path} do not fit the model it describes: copy it again") from error
    return model.to(device).eval()


def load_imagenet(model: CaptchaModel) -> None:
    """Load ImageNet weights into the backbone, from the network.

    Raises:
        UserError: the backbone has none, or they cannot be fetched.
    """
    load = getattr(model.backbone, "load_imagenet", None)
    if load is None:
        raise UserError(
            f"the backbone {model.config.backbone!r} has no ImageNet weights: use --model efficientnet, resnet or "
            "lacc, or --init scratch"
        )
    try:
        load()
    except Exception as error:  # urllib, ssl, hub and file errors alike: no weights
        raise UserError(
            f"ImageNet weights could not be fetched ({type(error).__name__}: {error}): check the network, or use "
            "--init scratch or --init PATH"
        ) from error
