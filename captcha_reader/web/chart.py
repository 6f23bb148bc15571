"""A small line chart as SVG, in the page's own colors, light and dark.

Gradio's LinePlot draws no intervals, loads a plotting library of 0.9 MB for two small charts, and knows nothing of the
colors of this page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from captcha_reader.web.html import render

if TYPE_CHECKING:
    from markupsafe import Markup

Named = Sequence[tuple[float, str]]  # values on an axis and what is written there


class Chart:
    """Where values stand in a line chart.

    Args:
        height: of the picture in pixels; its width is 560.
        across: the first and last value on the horizontal axis.
        highest: value on the vertical axis, which begins at 0.
    """

    width, left, right, top = 560, 44, 14, 14

    def __init__(self, height: int, across: tuple[float, float], highest: float) -> None:
        self.height, self.base = height, height - 28
        self.first, self.span, self.highest = across[0], across[1] - across[0] or 1.0, highest or 1.0

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Values to a place in the picture."""
        along = self.left + (x - self.first) / self.span * (self.width - self.left - self.right)
        return round(along, 1), round(self.base - y / self.highest * (self.base - self.top), 1)

    def draw(
        self,
        said: str,
        points: Sequence[tuple[float, float]],
        levels: Named,
        ticks: Named,
        dots: Sequence[tuple[float, float, str]] = (),
        whiskers: Sequence[tuple[float, float, float]] = (),
        mark: float | None = None,
    ) -> Markup:
        """The chart.

        Args:
            said: what it shows, in words.
            points: of its line.
            levels: values named on the vertical axis.
            ticks: values named on the horizontal axis.
            dots: (x, y, what it says when pointed at).
            whiskers: intervals (x, low, high).
            mark: where a dashed vertical line stands.
        """
        return render(
            "chart",
            chart=self,
            said=said,
            path=" ".join(f"{x},{y}" for x, y in (self.at(*point) for point in points)),
            levels=[(self.at(self.first, value)[1], name) for value, name in levels],
            ticks=[(self.at(value, 0)[0], name) for value, name in ticks],
            dots=[(*self.at(x, y), text) for x, y, text in dots],
            whiskers=[(*self.at(x, low), self.at(x, high)[1]) for x, low, high in whiskers],
            mark=None if mark is None else self.at(mark, 0)[0],
        )
