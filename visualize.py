"""Pictures of what a model reads. They are drawn in captcha_reader/plots/, one file a family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from captcha_reader.errors import UserError
from captcha_reader.files import SAVED_MODELS
from captcha_reader.images import ImageLike
from captcha_reader.plots.canvas import DPI, figure_image, new_figure, page_axes, save_figure
from captcha_reader.plots.colors import PAPER
from captcha_reader.plots.confidence import confidence_grid
from captcha_reader.plots.grid import (
    MAX_PICTURES,
    check_lengths,
    draw_grid,
    plot_comparison,
    show_all_images_with_predictions,
)
from captcha_reader.reading.prediction import Prediction
from captcha_reader.text import BLANK_ID
from predict import CaptchaPredictor

__all__ = ["CaptchaVisualizer", "show_all_images_with_predictions"]


class CaptchaVisualizer:
    """Pictures of what one model reads.

    Args:
        predictor: the model, or the path of its checkpoint; the shipped weights by default.

    Raises:
        UserError: the checkpoint is missing or cannot be used.
    """

    def __init__(self, predictor: CaptchaPredictor | str | Path | None = None) -> None:
        self.predictor = predictor if isinstance(predictor, CaptchaPredictor) else CaptchaPredictor(predictor)
        self.index_to_char = self.create_index_to_char_mapping()

    @staticmethod
    def load_latest_model(folder: str | Path = SAVED_MODELS) -> CaptchaPredictor:
        """The model written last: of the .safetensors files in `folder`, and the best.safetensors of the runs in it.

        Raises:
            UserError: there is none.
        """
        folder = Path(folder)
        found = [*folder.glob("*.safetensors"), *folder.glob("*/best.safetensors")]
        if not found:
            raise UserError(f"there is no model in {folder}: train one with main.py")
        return CaptchaPredictor(max(found, key=lambda p: (p.stat().st_mtime_ns, str(p))))

    def create_index_to_char_mapping(self) -> dict[int, str]:
        """Class id to character; the blank (0) maps to the empty string."""
        return {BLANK_ID: ""} | dict(enumerate(self.predictor.alphabet.characters, start=1))

    def decode_labels(self, labels: Sequence[Sequence[int]] | np.ndarray) -> list[str]:
        """Texts of class ids (N, L), padded with blanks or ragged.

        Raises:
            UserError: an id is outside the alphabet.
        """
        texts = []
        for row in labels:
            unknown = [int(i) for i in row if int(i) not in self.index_to_char]
            if unknown:
                raise UserError(f"the class id {unknown[0]} is not among the {len(self.index_to_char)} of this model")
            texts.append("".join(self.index_to_char[int(i)] for i in row))
        return texts

    def decode_predictions(self, log_probs: np.ndarray) -> list[str]:
        """Texts of a batch of log-probabilities (N, T, C), as the predictor decodes them."""
        return [reading.text for reading in self.predictor.codec.decode(log_probs)]

    def get_confidence_per_char(self, image: ImageLike | Prediction) -> list[tuple[str, float]]:
        """Characters read in one picture, each with its confidence, 0 to 1.

        Raises:
            UserError: the picture cannot be read.
        """
        prediction = image if isinstance(image, Prediction) else self.predictor.predict([image])[0]
        return list(zip(prediction.text, prediction.char_confidences, strict=True))

    def visualize_image(
        self, image: ImageLike, path: str | Path, truth: str | None = None, prediction: Prediction | None = None
    ) -> Path:
        """One picture, its reading and its confidence grid, written to `path`.

        Raises:
            UserError: the picture cannot be read, or `path` cannot be written.
        """
        prediction = prediction or self.predictor.predict([image])[0]
        truths = None if truth is None else [truth]
        top = figure_image(draw_grid([image], [prediction], truths, cell_width=5.0))
        bottom = figure_image(confidence_grid(prediction))
        size = max(top.width, bottom.width), top.height + bottom.height
        sheet = Image.new("RGB", size, PAPER)
        sheet.paste(top, ((size[0] - top.width) // 2, 0))
        sheet.paste(bottom, ((size[0] - bottom.width) // 2, top.height))
        page = page_axes(figure := new_figure(size[0] / DPI, size[1] / DPI))
        page.imshow(
            np.asarray(sheet), extent=(0, size[0] / DPI, size[1] / DPI, 0), aspect="auto", interpolation="nearest"
        )
        return save_figure(figure, path)

    def visualize_predictions(
        self,
        images: Sequence[ImageLike],
        truths: Sequence[str] | None,
        path: str | Path,
        predictions: Sequence[Prediction] | None = None,
        worst: bool = False,
        title: str = "",
    ) -> Path:
        """Grid of pictures with truth, reading, confidence per character, and right or wrong; at most 200 of them.

        Args:
            images: anything that `open_image` takes.
            truths: one label per picture, or None where they are not known.
            path: of the picture to write.
            predictions: what was read; by default the model reads the pictures now.
            worst: the surest wrong readings first (see `worst_first`); needs `truths`.
            title: by default how many are right.

        Raises:
            UserError: a picture cannot be read, the lists differ in length, or `path` cannot be written.
        """
        if worst and truths is None:
            raise UserError("without the labels there are no worst errors to show: give the truths")
        check_lengths(images, predictions=predictions, labels=truths)
        if predictions is None:
            predictions = self.predictor.predict(images if worst else images[:MAX_PICTURES])
            images = images if worst else images[: len(predictions)]
            truths = truths if worst or truths is None else truths[: len(predictions)]
        if truths is None:
            return show_all_images_with_predictions(images, predictions, path)
        return plot_comparison(images, predictions, truths, path, worst, title)
