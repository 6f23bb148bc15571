"""How many letters does it take to tell those apart that lepture's library draws alike?

    pip install captcha==0.7.1
    python benchmarks/lepture_letters.py 4000       # letters of each class to learn from; a tenth and half of them, too

The library draws every letter by itself, turned, warped and stretched, and then lays them beside each other, with dots
and a curve. Here a network for each group of letters that look alike sees them before that, clean, one by one, in their
own pixels, and has only to tell those of the group apart. 5,000 captchas have about 400 of each.
"""

from __future__ import annotations

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

from common import available_cores

GROUPS = ("0Oo", "Vv", "Xx", "Zz")
HEIGHT, WIDTH = 80, 40  # the library's letters have 72 x 35 pixels at most
BATCH, EPOCHS, RATE = 128, 3, 0.004
PART = 2500  # letters that a process draws at once
TESTED = 2000  # of each class


def draw(count: int, character: str) -> np.ndarray:
    """So many pictures of a letter, (N, HEIGHT, WIDTH) uint8. The library cannot be seeded: every call draws others."""
    drawer, sheet = ImageCaptcha(), ImageDraw.Draw(Image.new("RGB", (1, 1)))
    pictures = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    for picture in pictures:
        letter = np.asarray(drawer._draw_character(character, sheet, (255, 255, 255)))[..., 3]
        picture[: letter.shape[0], : letter.shape[1]] = letter
    return pictures


def learn(pictures: np.ndarray, classes: np.ndarray, count: int, epochs: int) -> nn.Module:
    """A network of eight convolutions that has seen letters (N, HEIGHT, WIDTH) of `count` classes `epochs` times."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    before = 1
    for channels in (16, 32, 64, 96):
        for stride in (2, 1):
            layers += [nn.Conv2d(before, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
    inputs = before * HEIGHT // 16 * -(-WIDTH // 16)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, count)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = len(pictures) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps)
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(pictures))[: steps * BATCH].reshape(steps, BATCH)
        for places in tqdm(order, desc=f"epoch {epoch + 1}/{epochs}", leave=False):
            loss = nn.functional.cross_entropy(scores(model, pictures[places]), torch.from_numpy(classes[places]))
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


def main(count: int) -> None:
    """Draw the groups, learn and measure, and print the tables."""
    torch.set_num_threads(available_cores())
    rows: list[list[object]] = []
    for group in GROUPS:
        drawn = []
        with ProcessPoolExecutor(available_cores()) as pool:
            for c in tqdm(group, desc=f"drawing {group}", leave=False):
                parts = pool.map(partial(draw, character=c), [PART] * -(-(count + TESTED) // PART))
                drawn.append(np.concatenate(list(parts)))
        test, test_classes = joined([pictures[:TESTED] for pictures in drawn])
        for n in (count // 10, count // 2, count):
            pictures, classes = joined([pictures[TESTED : TESTED + n] for pictures in drawn])
            model = learn(pictures, classes, len(group), EPOCHS * count // n)  # all of them in as many steps
            shares = wrong(model, group, test, test_classes)
            rows.append([" ".join(group), f"{n:,}", *(f"{share:.1%}" for share in shares)])
    print(table(["letters", "of each to learn from", "wrong", "ignoring case"], rows))


def joined(pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of each class, one after another, and their classes."""
    return np.concatenate(pictures), np.repeat(np.arange(len(pictures)), [len(part) for part in pictures])


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit("usage: python benchmarks/lepture_letters.py COUNT")
    main(int(sys.argv[1]))
