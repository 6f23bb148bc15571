"""What the tabs share: the models, the corrected readings and the fine-tuning jobs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from captcha_reader.errors import UserError
from captcha_reader.files import ROOT
from captcha_reader.web.feedback import Feedback
from captcha_reader.web.jobs import Teacher
from captcha_reader.web.models import Models


@dataclasses.dataclass
class Workshop:
    """What the tabs share: the models, the corrected readings, the trainings."""

    models: Models
    feedback: Feedback
    teacher: Teacher

    @classmethod
    def build(cls, models: Models, data: str | Path = ROOT / "data", threads: int | None = None) -> Workshop:
        """With its folders below `data`; none is made yet."""
        folder = Path(data)
        return cls(models, Feedback(folder / "feedback"), Teacher(models.folder, folder / ".teaching", threads))

    def names(self) -> list[str]:
        """The models to choose from."""
        return list(self.models.paths())

    def teachable(self, name: str | None) -> tuple[str, Path]:
        """The .safetensors file of a model: itself, or for an .onnx the one beside it.

        Raises:
            UserError: there is none.
        """
        chosen, path = self.models.path(name)
        if path.suffix == ".safetensors":
            return chosen, path
        twin = path.with_suffix(".safetensors")
        names = {p.resolve(): n for n, p in self.models.paths().items()}
        if twin.resolve() in names:
            return names[twin.resolve()], twin
        raise UserError(f"{chosen} cannot be taught, since an .onnx file is final: choose a .safetensors model")


def upload_bytes(image: str | Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError:  # uploads are deleted after an hour
        raise UserError("the picture is gone: upload it again") from None
