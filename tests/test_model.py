"""Every backbone with every head; losses by hand; what is frozen stays; checkpoints and what becomes of them."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from captcha_reader.config import ModelConfig
from captcha_reader.errors import UserError
from captcha_reader.text import Alphabet
from model import (
    MODEL_CLASSES,
    MODELS,
    CaptchaModel,
    blend,
    build_model,
    count_parameters,
    load_imagenet,
    load_into,
    load_model,
    read_metadata,
    save_checkpoint,
    set_requires_grad,
    train_mode,
)

ROOT = Path(__file__).resolve().parent.parent
CTC_HEADS = ("ctc", "mixer")
HEADS = ["ctc", "mixer", "slots", "positions", "combination"]
BACKBONES = {"crnn": "residual", "resnet": "resnet18", "efficientnet": "efficientnet-b0"}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pictures(count: int, channels: int, size: tuple[int, int] = (16, 48), seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=generator)


def step(model: CaptchaModel, texts: list[str]) -> None:
    """One training step on random pictures."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    logits = model(pictures(len(texts), model.config.channels))
    model.losses(logits, texts).mean().backward()
    optimizer.step()


# --------------------------------------------------------------------------------------------------------------------
# Parts


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("name", "alphabet"),
    [("crnn", "ab"), ("crnn", "0123456789ABCDEF"), ("resnet", "abc"), ("efficientnet", "+-*=абв")],
)
def test_any_head_goes_with_any_backbone(name: str, head: str, alphabet: str, tiny: Callable, settle: Callable) -> None:
    model = build_model(tiny(name, head=head, alphabet=alphabet))
    settle(model, pictures(8, model.config.channels, seed=1))
    assert model.config.backbone == BACKBONES[name]
    logits = [model(pictures(n, model.config.channels)) for n in (1, 3)]
    for n, out in zip((1, 3), logits, strict=True):
        assert out.shape == (n, model.steps, len(alphabet) + 1)
        assert out.isfinite().all()
    # The pictures of a batch do not touch each other, and different ones give different logits.
    first, last = pictures(3, model.config.channels)[[0]], pictures(3, model.config.channels)[[2]]
    assert torch.allclose(model(first), logits[1][:1], atol=1e-3)
    assert not torch.allclose(model(first), model(last), atol=1e-2)
    if head not in CTC_HEADS:
        assert model.steps == 3


@pytest.mark.parametrize("name", MODELS)
def test_every_name_builds_its_class_and_trains_all_its_weights(name: str, tiny: Callable) -> None:
    model = build_model(tiny(name))
    assert type(model) is MODEL_CLASSES[name]
    train_mode(model)
    model.losses(model(pictures(3, model.config.channels)), ["a", "ab", "abc"]).sum().backward()
    without = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # An attention's key bias adds the same to every place, which softmax cancels: its gradient is zero by design.
    assert set(without) <= {"head.keys.bias"}, without
    assert count_parameters(model) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_gray_pictures_go_with_every_model(name: str, tiny: Callable) -> None:
    for channels in (1, 3):
        model = build_model(tiny(name, channels=channels)).eval()
        assert model(pictures(2, channels)).shape[0] == 2


@pytest.mark.parametrize("name", ["resnet", "efficientnet"])
def test_imagenet_backbones_see_gray_as_its_color_copy(name: str, tiny: Callable) -> None:
    gray, color = build_model(tiny(name, channels=1)).eval(), build_model(tiny(name, channels=3)).eval()
    color.load_state_dict(gray.state_dict())
    images = pictures(2, 1)
    assert torch.allclose(gray(images), color(images.expand(-1, 3, -1, -1)), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_ctc_gets_a_step_for_every_four_to_eight_columns(name: str, tiny: Callable) -> None:
    model = build_model(tiny(name, head="ctc", image_size=(32, 160)))
    assert 160 / 8 <= model.steps <= 160 / 4


@pytest.mark.parametrize("size", [(48, 160), (40, 104), (64, 64), (17, 49)])
@pytest.mark.parametrize("name", MODELS)
def test_other_input_sizes_run(name: str, size: tuple[int, int], tiny: Callable) -> None:
    model = build_model(tiny(name, image_size=size)).eval()
    assert model(pictures(1, model.config.channels, size)).shape == (1, model.steps, 5)


def test_pixels_are_normalized_inside_the_network(tiny: Callable) -> None:
    for name, mean, std in (("crnn", 0.5, 0.5), ("resnet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])):
        model = build_model(tiny(name)).eval()
        images = pictures(2, model.config.channels)
        seen = []
        model.backbone.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        model(images)
        expected = (images.float() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
        assert torch.allclose(seen[0], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet", "resnet", "crnn", "lacc"])
def test_slots_say_where_they_look(name: str, tiny: Callable) -> None:
    model = build_model(tiny(name)).eval()
    attention = model.attention(pictures(2, model.config.channels))
    if name in ("crnn", "lacc"):
        assert attention is None
        return
    assert attention.shape[:2] == (2, model.steps)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, model.steps))
    columns = (attention * torch.arange(attention.shape[2])).sum(-1)
    assert (columns.diff(dim=1) > 0).all(), "untrained slots start to look from left to right"


def test_log_probs_are_normalized(tiny: Callable) -> None:
    model = build_model(tiny()).eval()
    assert torch.allclose(model.log_probs(pictures(2, 1)).exp().sum(-1), torch.ones(2, model.steps))


def test_dropout_is_on_in_training_alone(tiny: Callable) -> None:
    for head in HEADS:
        model = build_model(tiny(head=head, dropout=0.5)).eval()
        images = pictures(2, 1)
        assert model(images).equal(model(images))
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.train()
        assert not model(images).equal(model(images)), head


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "vit"}, "vit"),
        ({"head": "attention"}, "attention"),
        ({"backbone": "vgg"}, "vgg"),
        ({"name": "efficientnet", "backbone": "efficientnet-b99"}, "efficientnet-b99"),
    ],
)
def test_unknown_parts_are_named(changes: dict, named: str) -> None:
    values = {"name": "crnn", "alphabet": "ab", "max_length": 3, "image_size": (16, 48)} | changes
    with pytest.raises(UserError, match=named):
        build_model(ModelConfig(**values))


# --------------------------------------------------------------------------------------------------------------------
# Losses


def test_ctc_loss_is_the_negative_log_likelihood_per_character(tiny: Callable) -> None:
    """Against the sum over all paths: `a` in two steps is `aa`, `-a` or `a-`."""
    model = build_model(tiny(alphabet="ab"))
    logits = torch.randn(3, 2, 3)
    p = logits.softmax(-1)
    expected = [
        -torch.log(p[0, 0, 1] * p[0, 1, 1] + p[0, 0, 0] * p[0, 1, 1] + p[0, 0, 1] * p[0, 1, 0]),
        -torch.log(p[1, 0, 1] * p[1, 1, 2]) / 2,
        -torch.log(p[2, 0, 2] * p[2, 1, 2] + p[2, 0, 0] * p[2, 1, 2] + p[2, 0, 2] * p[2, 1, 0]),
    ]
    assert torch.allclose(model.losses(logits, ["a", "ab", "b"]), torch.stack(expected), atol=1e-6)


def test_a_flat_start_wants_letters_in_the_middle_of_equal_parts_and_blanks_at_their_edges(tiny: Callable) -> None:
    codec = build_model(tiny(alphabet="ab")).codec
    wanted = torch.zeros(1, 8, 3)
    for column, found in ((0, 0), (2, 1), (4, 0), (6, 2), (7, 0)):  # of two letters in eight columns
        wanted[0, column, found] = 50.0
    assert codec.even_loss(wanted, ["ab"]).item() == pytest.approx(0, abs=1e-4)
    assert codec.even_loss(wanted, ["ba"]).item() == pytest.approx(50, abs=1e-3)
    ignorant = 1.3 * math.log(3)  # the blanks count for 0.3
    assert codec.even_loss(torch.zeros(2, 8, 3), ["a", "ab"]).tolist() == pytest.approx([ignorant] * 2)


@pytest.mark.parametrize("head", ["slots", "positions", "combination"])
def test_slot_loss_is_the_mean_cross_entropy_with_padding(head: str, tiny: Callable) -> None:
    model = build_model(tiny(alphabet="ab", head=head))
    logits = torch.randn(2, 3, 3)
    log_p = logits.log_softmax(-1)
    expected = [
        -(log_p[0, 0, 2] + log_p[0, 1, 1] + log_p[0, 2, 0]) / 3,
        -(log_p[1, 0, 1] + log_p[1, 1, 0] + log_p[1, 2, 0]) / 3,
    ]
    assert torch.allclose(model.losses(logits, ["ba", "a"]), torch.stack(expected), atol=1e-6)
    smoothed = model.losses(logits, ["ba", "a"], label_smoothing=0.1)
    mixed = [0.9 * e - 0.1 * log_p[i].mean() for i, e in enumerate(expected)]
    assert torch.allclose(smoothed, torch.stack(mixed), atol=1e-6)


def test_half_precision_logits_give_a_float_loss(tiny: Callable) -> None:
    for head in HEADS:
        model = build_model(tiny(head=head))
        logits = torch.randn(2, model.steps, 5)
        loss = model.losses(logits.bfloat16(), ["ab", "c"])
        assert loss.dtype == torch.float32
        assert torch.allclose(loss, model.losses(logits, ["ab", "c"]), rtol=0.05)


# --------------------------------------------------------------------------------------------------------------------
# Frozen


@pytest.mark.parametrize("name", MODELS)
def test_a_frozen_backbone_keeps_weights_and_running_statistics(name: str, tiny: Callable) -> None:
    model = build_model(tiny(name))
    set_requires_grad(model.backbone, False)
    train_mode(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    step(model, ["ab", "c", "abc"])
    changed = {k for k, v in model.state_dict().items() if not v.equal(before[k])}
    assert changed
    assert all(key.startswith("head.") for key in changed)

    set_requires_grad(model.backbone, True)
    train_mode(model)
    step(model, ["ab", "c", "abc"])
    changed = {k for k, v in model.state_dict().items() if not v.equal(before[k])}
    assert any("running_mean" in key for key in changed)
    assert {k for k in before if k.startswith("backbone.")} <= changed


# --------------------------------------------------------------------------------------------------------------------
# Checkpoints


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_is_the_same_model(name: str, tiny: Callable, tmp_path: Path) -> None:
    model = build_model(tiny(name))
    train_mode(model)
    model(pictures(4, model.config.channels))  # statistics of BatchNorm unlike those of a new model
    path = save_checkpoint(model.eval(), tmp_path / "a" / "m.safetensors")
    loaded = load_model(path)
    assert not loaded.training
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(v.equal(model.state_dict()[k]) for k, v in loaded.state_dict().items())
    images = pictures(2, model.config.channels)
    assert loaded(images).equal(model(images))
    assert [p.name for p in path.parent.iterdir()] == ["m.safetensors"], "no temporary file is left"


def test_half_is_half_the_size_and_nearly_the_same(tiny: Callable, tmp_path: Path) -> None:
    model = build_model(tiny()).eval()
    whole = save_checkpoint(model, tmp_path / "whole.safetensors")
    half = save_checkpoint(model, tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded = load_model(half)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    images = pictures(3, 1)
    assert not loaded(images).equal(model(images))
    assert torch.allclose(loaded.log_probs(images), model.log_probs(images), atol=0.02)


def test_the_metadata_says_all_that_prediction_needs(tiny: Callable, tmp_path: Path) -> None:
    model = build_model(tiny("lacc", resize="square"))
    path = save_checkpoint(
        model,
        tmp_path / "m.safetensors",
        metrics={"cer": 0.1, "n": 400},
        provenance={"time": "now", "config": {"a": 1}},
    )
    metadata = read_metadata(path)
    assert metadata["format"] == "captcha-reader/1"
    assert metadata["model"] == {
        "name": "lacc",
        "backbone": "efficientnet-b0",
        "head": "combination",
        "alphabet": "abcd",
        "max_length": 3,
        "image_size": [16, 48],
        "other_height": None,
        "channels": 3,
        "resize": "square",
        "normalize": False,
        "soften": 0.0,
        "hidden": 8,
        "dropout": 0.1,
    }
    assert metadata.keys() == {"format", "model", "metrics", "provenance", "calibration"}
    assert metadata["metrics"] == {"cer": 0.1, "n": 400}
    assert metadata["provenance"] == {"time": "now", "config": {"a": 1}}


def test_a_key_of_a_later_version_is_no_obstacle(tiny: Callable, tmp_path: Path) -> None:
    model = build_model(tiny())
    path = save_checkpoint(model, tmp_path / "m.safetensors")
    metadata = {k: v if k == "format" else json.dumps(v) for k, v in read_metadata(path).items()}
    metadata["model"] = json.dumps(json.loads(metadata["model"]) | {"novelty": 7})
    save_file(load_file(path), tmp_path / "later.safetensors", metadata)
    assert load_model(tmp_path / "later.safetensors").config == model.config


def test_a_file_that_cannot_be_used_is_one_sentence(tiny: Callable, tmp_path: Path) -> None:
    good = save_checkpoint(build_model(tiny()), tmp_path / "good.safetensors")
    whole = good.read_bytes()
    files = {
        "missing.safetensors": (None, "there is no checkpoint"),
        "empty.safetensors": (b"", "damaged"),
        "cut.safetensors": (whole[: len(whole) // 2], "damaged"),
        "beheaded.safetensors": (whole[:5], "damaged"),
        "text.safetensors": (b"this is a text, and a long one at that", "damaged"),
        "pickle.pt": (pickle.dumps({"weights": [1, 2]}), "pickle"),
    }
    for name, (data, said) in files.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(UserError, match=said) as error:
            load_model(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    for name in ("trap.pt", "trap.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(UserError):
            load_model(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_foreign_or_unfitting_weights_are_refused(tiny: Callable, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, foreign)
    with pytest.raises(UserError, match="not written by this project"):
        load_model(foreign)
    path = save_checkpoint(build_model(tiny()), tmp_path / "m.safetensors")
    metadata = {k: v if k == "format" else json.dumps(v) for k, v in read_metadata(path).items()}
    metadata["model"] = json.dumps(json.loads(metadata["model"]) | {"alphabet": "abcdefgh"})
    save_file(load_file(path), tmp_path / "unfit.safetensors", metadata)
    with pytest.raises(UserError, match="do not fit"):
        load_model(tmp_path / "unfit.safetensors")


# --------------------------------------------------------------------------------------------------------------------
# Starting from another model


def class_rows(model: CaptchaModel, character: str) -> list[torch.Tensor]:
    """All that belongs to one class in the head; the blank is ''."""
    row = Alphabet(model.config.alphabet).encode(character)[0] if character else 0
    return [model.get_parameter(f"head.{name}").select(axis, row) for name, axis in model.head.class_axes.items()]


@pytest.mark.parametrize("head", HEADS)
def test_shared_characters_keep_their_rows(head: str, tiny: Callable, tmp_path: Path) -> None:
    old = build_model(tiny(head=head, alphabet="abcd"))
    for name in old.head.class_axes:  # a new bias is zero: no row would be told from another
        torch.nn.init.normal_(old.get_parameter(f"head.{name}"))
    path = save_checkpoint(old, tmp_path / "old.safetensors")
    new = build_model(tiny(head=head, alphabet="xdza"))
    random = {c: [r.clone() for r in class_rows(new, c)] for c in "xz"}
    transfer = load_into(new, path)
    assert set(transfer.shared) == {"a", "d"}
    assert set(transfer.new) == {"x", "z"}
    assert transfer.fresh == ()
    for character in ("a", "d", ""):
        assert class_rows(new, character)
        for mine, theirs in zip(class_rows(new, character), class_rows(old, character), strict=True):
            assert mine.equal(theirs), character
    for character in "xz":
        for mine, untouched in zip(class_rows(new, character), random[character], strict=True):
            assert mine.equal(untouched)
    classes = {f"head.{name}" for name in new.head.class_axes}
    for name, tensor in new.state_dict().items():
        if name not in classes:
            assert tensor.equal(old.state_dict()[name]), name


def test_the_same_alphabet_gives_the_same_readings(tiny: Callable, tmp_path: Path) -> None:
    old = build_model(tiny()).eval()
    new = build_model(tiny()).eval()
    images = pictures(2, 1)
    assert not new(images).equal(old(images))
    transfer = load_into(new, save_checkpoint(old, tmp_path / "old.safetensors"))
    assert (transfer.shared, transfer.new, transfer.fresh) == ("abcd", "", ())
    assert new(images).equal(old(images))


def test_nothing_in_common_still_transfers_the_backbone(tiny: Callable, tmp_path: Path) -> None:
    old = build_model(tiny(alphabet="abcd"))
    new = build_model(tiny(alphabet="wxyz"))
    transfer = load_into(new, save_checkpoint(old, tmp_path / "old.safetensors"))
    assert (transfer.shared, transfer.new) == ("", "wxyz")
    for name, tensor in new.backbone.state_dict().items():
        assert tensor.equal(old.backbone.state_dict()[name])


def test_a_blend_lies_between_start_and_end(tiny: Callable) -> None:
    start, end = build_model(tiny("mixer")), build_model(tiny("mixer"))
    a, b = start.state_dict(), end.state_dict()
    for share, expected in ((0, a), (1, b)):
        assert all(torch.allclose(value, expected[name]) for name, value in blend(start, end, share).items())
    quarter = blend(start, end, 0.25)
    for name, value in quarter.items():
        if value.is_floating_point():
            assert torch.allclose(value, 0.75 * a[name] + 0.25 * b[name], atol=1e-6)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_gray_and_color_start_from_each_other(before: int, after: int, tiny: Callable, tmp_path: Path) -> None:
    old, new = build_model(tiny(channels=before)).eval(), build_model(tiny(channels=after)).eval()
    assert load_into(new, save_checkpoint(old, tmp_path / "old.safetensors")).fresh == ()
    gray = pictures(2, 1)
    views = {1: gray, 3: gray.expand(-1, 3, -1, -1)}
    assert torch.allclose(old(views[before]), new(views[after]), atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_another_length_renews_what_depends_on_it(head: str, tiny: Callable, tmp_path: Path) -> None:
    short, long = (build_model(tiny(head=head, max_length=n)).state_dict() for n in (3, 5))
    depends = {name for name in short if short[name].shape != long[name].shape}
    assert bool(depends) == (head not in CTC_HEADS)
    old, new = build_model(tiny(head=head, max_length=3)), build_model(tiny(head=head, max_length=5, alphabet="abcx"))
    transfer = load_into(new, save_checkpoint(old, tmp_path / "old.safetensors"))
    assert set(transfer.fresh) == depends
    assert (set(transfer.shared), transfer.new) == (set("abc"), "x")
    assert new.eval()(pictures(1, 1)).isfinite().all()


@pytest.mark.parametrize("head", CTC_HEADS)
@pytest.mark.parametrize("heights", [(32, 48), (48, 32), (16, 64)])
def test_a_ctc_head_goes_on_with_another_input_height(
    head: str, heights: tuple[int, int], tiny: Callable, tmp_path: Path
) -> None:
    """Where all rows of the feature map are alike, it does not matter how many there are."""
    old, new = (build_model(tiny(head=head, image_size=(height, 48))) for height in heights)
    assert load_into(new, save_checkpoint(old, tmp_path / "old.safetensors")).fresh == ()
    column = torch.rand(2, old.backbone.out_channels, 1, 12)
    before, after = (
        model.eval().head(column.expand(-1, -1, model.config.image_size[0] // 16, -1)) for model in (old, new)
    )
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("head", CTC_HEADS)
def test_one_model_reads_both_heights_as_its_own_and_as_the_one_moved_there(
    head: str, tiny: Callable, tmp_path: Path
) -> None:
    low, high = (build_model(tiny(head=head, image_size=(height, 48))) for height in (32, 48))
    load_into(high, save_checkpoint(low, tmp_path / "low.safetensors"))
    images = pictures(2, 1, size=(48, 48))
    assert torch.allclose(low.eval()(images), high.eval()(images), atol=1e-5)
    low.train()(images).square().mean().backward()
    assert low.head.reduce.weight.grad.abs().sum() > 0, "it learns from the other height, too"


def test_another_head_or_input_size_keeps_the_backbone(tiny: Callable, tmp_path: Path) -> None:
    ctc, slots = tiny(head="ctc"), tiny(head="slots")
    larger_ctc, larger_slots = (tiny(head=head, image_size=(32, 64)) for head in ("ctc", "slots"))
    for before, after in ((ctc, slots), (slots, ctc), (slots, larger_slots), (ctc, larger_ctc)):
        old, new = build_model(before), build_model(after)
        transfer = load_into(new, save_checkpoint(old, tmp_path / "old.safetensors"))
        assert bool(transfer.fresh) == (after is not larger_ctc)
        assert all(name.startswith("head.") for name in transfer.fresh)
        for name, tensor in new.backbone.state_dict().items():
            assert tensor.equal(old.backbone.state_dict()[name])


def test_another_backbone_is_refused(tiny: Callable, tmp_path: Path) -> None:
    path = save_checkpoint(build_model(tiny("crnn")), tmp_path / "old.safetensors")
    with pytest.raises(UserError, match="--model crnn"):
        load_into(build_model(tiny("resnet")), path)


@pytest.mark.parametrize("name", ["reader", "efficientnet"])
def test_the_shipped_weights_load_and_start_other_models(name: str) -> None:
    path = ROOT / "saved_models" / f"{name}.safetensors"
    model = load_model(path)
    other = build_model(dataclasses.replace(model.config, alphabet="0123456789!"))
    transfer = load_into(other, path)
    assert (transfer.shared, transfer.new, transfer.fresh) == ("0123456789", "!", ())
    images = pictures(2, 3, (model.config.image_size[0], 128))
    rows = [0, *(model.alphabet.encode(c)[0] for c in "0123456789")]
    torch.testing.assert_close(other.eval()(images)[..., :11], model(images)[..., rows])


def test_imagenet_weights_for_a_backbone_that_has_none(tiny: Callable) -> None:
    with pytest.raises(UserError, match="--model efficientnet"):
        load_imagenet(build_model(tiny("crnn")))


@pytest.mark.parametrize("name", ["resnet", "efficientnet"])
def test_imagenet_weights_reach_the_backbone(name: str, tiny: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download itself is replaced: the packages' own networks, with random weights, take its place."""
    import efficientnet_pytorch
    import torchvision.models

    model = build_model(tiny(name))
    if name == "resnet":
        source = torchvision.models.resnet18(weights=None)
        monkeypatch.setattr(torchvision.models, "resnet18", lambda weights: source)
    else:
        source = efficientnet_pytorch.EfficientNet.from_name("efficientnet-b0", include_top=False)
        monkeypatch.setattr(efficientnet_pytorch.EfficientNet, "from_pretrained", lambda *a, **k: source)
    head = {k: v.clone() for k, v in model.head.state_dict().items()}
    load_imagenet(model)
    loaded = model.backbone.network.state_dict()
    assert len(loaded) > 100
    assert all(v.equal(source.state_dict()[k]) for k, v in loaded.items())
    assert all(v.equal(head[k]) for k, v in model.head.state_dict().items())


def test_the_keys_of_attention_have_no_say_by_their_bias(tiny: Callable, settle: Callable) -> None:
    """Why the one gradient above may be zero."""
    model = build_model(tiny("efficientnet"))
    settle(model, pictures(8, 3))
    images = pictures(1, 3)
    before = model(images)
    torch.nn.init.normal_(model.head.keys.bias)
    assert torch.allclose(model(images), before, atol=1e-4)
    torch.nn.init.normal_(model.head.keys.weight, std=10)
    assert not torch.allclose(model(images), before, atol=1e-4)


def test_a_setting_that_was_renamed_is_found_in_older_checkpoints() -> None:
    described = {"name": "mixer", "alphabet": "ab", "max_length": 4, "image_size": (32, 64), "head": "mixer"}
    assert ModelConfig.from_json(described | {"normalise": True}).normalize
    assert not ModelConfig.from_json(described).normalize
