"""How many letters does it take to tell those apart that lepture's library draws alike?

    pip install captcha==0.7.1
    python benchmarks/lepture_letters.py 4000       # letters of each class to learn from; a tenth and half of them, too
    python benchmarks/lepture_letters.py 4000 placed                                    # 0, O and o alone, in captchas

The library draws every letter by itself, turned, warped and stretched, and then lays them beside each other, with dots
and a curve. Here a network for each group of letters that look alike sees them before that, clean, one by one, in their
own pixels, and has only to tell those of the group apart. 5,000 captchas have about 400 of each.

With `placed` it sees 0, O and o where the library has laid them: overlapped, squeezed where a word is too wide, crossed
by the curve and with dots on them, cut out where the shipped reader finds them. All are of one grey, so that no colour
distracts, and mirrored and turned at random, which makes more of these three. A captcha has many of them, for they are
what is drawn for: every second character is one.
"""

from __future__ import annotations

import random
import string
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import torch
from captcha.image import ImageCaptcha
from PIL import Image, ImageDraw
from tables import table
from torch import nn
from tqdm import tqdm

from captcha_reader.files import ROOT, available_cores
from captcha_reader.transforms import build_transform
from model import load_model

GROUPS = ("0Oo", "Vv", "Xx", "Zz")
HEIGHT, WIDTH = 80, 40  # the library's letters have 72 x 35 pixels at most
BATCH, EPOCHS, RATE = 128, 3, 0.004
PART = 2500  # letters that a process draws at once
TESTED = 2000  # of each class
ALIKE = GROUPS[0]
ROWS, COLUMNS = 64, 72  # of what is cut out of a captcha: the letter's place and some of its neighbours
PLACED_EPOCHS = 40
GREY, PAPER = (128, 128, 128), (250, 250, 250)


def draw(count: int, character: str) -> np.ndarray:
    """So many pictures of a letter, (N, HEIGHT, WIDTH) uint8. The library cannot be seeded: every call draws others."""
    drawer, sheet = ImageCaptcha(), ImageDraw.Draw(Image.new("RGB", (1, 1)))
    pictures = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    for picture in pictures:
        letter = np.asarray(drawer._draw_character(character, sheet, (255, 255, 255)))[..., 3]
        picture[: letter.shape[0], : letter.shape[1]] = letter
    return pictures


def placed(count: int) -> list[np.ndarray]:
    """So many pictures of each of `ALIKE` as they lie in captchas, each (N, ROWS, COLUMNS) uint8."""
    torch.set_num_threads(1)  # it is one of several processes
    drawer, dice, others = ImageCaptcha(), random.SystemRandom(), set(string.ascii_letters + string.digits) - set(ALIKE)
    model = load_model(ROOT / "saved_models/reader.safetensors").eval()
    transform = build_transform(model.config).at(ROWS)
    found: dict[str, list[np.ndarray]] = {c: [] for c in ALIKE}
    while min(map(len, found.values())) < count:
        choices = [dice.choice((ALIKE, sorted(others))) for _ in range(dice.randint(4, 6))]
        text = "".join(dice.choice(characters) for characters in choices)
        pixels = transform(drawer.generate_image(text, PAPER, GREY))
        with torch.inference_mode():
            log_probs = model.log_probs(torch.from_numpy(pixels[None]))[0].numpy()
        wide = np.pad(pixels[0], ((0, 0), (COLUMNS // 2, COLUMNS // 2)), mode="edge")
        for character, (start, end) in zip(text, model.codec.align(log_probs, text), strict=True):
            if character in found:
                left = round((start + end) / 2 / len(log_probs) * pixels.shape[2])
                found[character].append(wide[:, left : left + COLUMNS])
    return [np.stack(pictures[:count]) for pictures in found.values()]


def mirrored(pictures: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """The same pictures (N, H, W), each as it is, mirrored, upside down or both."""
    pictures = np.where(dice.random((len(pictures), 1, 1)) < 0.5, pictures[:, ::-1], pictures)
    return np.where(dice.random((len(pictures), 1, 1)) < 0.5, pictures[:, :, ::-1], pictures)


def learn(pictures: np.ndarray, classes: np.ndarray, count: int, epochs: int, mirror: bool = False) -> nn.Module:
    """A network of eight convolutions that has seen letters (N, H, W) of `count` classes `epochs` times."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    before = 1
    for channels in (16, 32, 64, 96):
        for stride in (2, 1):
            layers += [nn.Conv2d(before, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
    inputs = before * -(-pictures.shape[1] // 16) * -(-pictures.shape[2] // 16)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, count)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = len(pictures) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps)
    for epoch in range(epochs):
        dice = np.random.default_rng(epoch)
        order = dice.permutation(len(pictures))[: steps * BATCH].reshape(steps, BATCH)
        for places in tqdm(order, desc=f"epoch {epoch + 1}/{epochs}", leave=False):
            seen = mirrored(pictures[places], dice) if mirror else pictures[places]
            loss = nn.functional.cross_entropy(scores(model, seen), torch.from_numpy(classes[places]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def scores(model: nn.Module, pictures: np.ndarray) -> torch.Tensor:
    """Of each class, (N, classes)."""
    return model(torch.from_numpy(pictures[:, None]).float() / 255)


def wrong(model: nn.Module, group: str, pictures: np.ndarray, classes: np.ndarray) -> tuple[float, float]:
    """The shares of letters taken for another one, with case and without."""
    with torch.inference_mode():
        read = torch.cat([scores(model, part) for part in np.array_split(pictures, 100)])
    merged = [group.lower().index(c) for c in group.lower()]  # the class that stands for both cases
    other = np.array(merged)[classes]
    either = torch.zeros_like(read).index_add_(1, torch.tensor(merged), read.softmax(1))
    return float((read.argmax(1).numpy() != classes).mean()), float((either.argmax(1).numpy() != other).mean())


def main(count: int, in_captchas: bool) -> None:
    """Draw the groups, learn and measure, and print the tables."""
    torch.set_num_threads(available_cores())
    epochs = PLACED_EPOCHS if in_captchas else EPOCHS
    rows: list[list[object]] = []
    for group in (ALIKE,) if in_captchas else GROUPS:
        parts = -(-(count + TESTED) // PART)
        with ProcessPoolExecutor(available_cores()) as pool:
            if in_captchas:
                found = list(tqdm(pool.map(placed, [PART] * parts), total=parts, desc="captchas", leave=False))
                drawn = [np.concatenate(pictures) for pictures in zip(*found, strict=True)]
            else:
                drawn = []
                for c in tqdm(group, desc=f"drawing {group}", leave=False):
                    drawn.append(np.concatenate(list(pool.map(partial(draw, character=c), [PART] * parts))))
        test, test_classes = joined([pictures[:TESTED] for pictures in drawn])
        for n in (count // 10, count // 2, count):
            pictures, classes = joined([pictures[TESTED : TESTED + n] for pictures in drawn])
            model = learn(pictures, classes, len(group), epochs * count // n, in_captchas)  # all in as many steps
            shares = wrong(model, group, test, test_classes)
            rows.append([" ".join(group), f"{n:,}", *(f"{share:.1%}" for share in shares)])
    print(table(["letters", "of each to learn from", "wrong", "ignoring case"], rows))


def joined(pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of each class, one after another, and their classes."""
    return np.concatenate(pictures), np.repeat(np.arange(len(pictures)), [len(part) for part in pictures])


if __name__ == "__main__":
    if not (len(sys.argv) == 2 or sys.argv[2:] == ["placed"]) or not sys.argv[1].isdigit():
        sys.exit("usage: python benchmarks/lepture_letters.py COUNT [placed]")
    main(int(sys.argv[1]), len(sys.argv) == 3)
