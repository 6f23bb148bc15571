"""Small drawers of captchas, such as one developer of a site writes in an evening, each an idea of its own.

`older` has what sites of 2003-2014 had, `newer` of 2010-2024, and none of the 64 reproduces a library. They serve only
to measure, as benchmarks/accuracy.md tells: no reader that is shipped is trained on their pictures.
"""

from __future__ import annotations

from . import newer, older
from .tools import Drawer

DRAWERS: dict[str, Drawer] = {**older.DRAWERS, **newer.DRAWERS}

STEERED = frozenset(  # were looked at before the traits of schemes in `captcha_styles._rare_traits` were chosen
    [
        "aspnet_hatch",
        "background_scratches",
        "chessboard_invert",
        "confetti_rotated",
        "emboss_grey",
        "faint_strings_behind",
        "handwriting_notebook",
        "hollow_crossed",
        "imagemagick_wave",
        "lens_and_swirl",
        "letter_badges",
        "letters_of_letters",
        "misprint_cmy",
        "negative_discs",
        "outline_only",
        "retina_soft_blobs",
        "rings_same_ink",
        "rmagick_gradient_ink",
        "row_column_sine_shift",
        "see_through_shapes",
        "seven_segment",
        "static_density",
        "svg_wobbly_paths",
        "terminal_scanlines",
        "tiles_per_letter",
        "tiny_hex_border",
        "tiny_verdana_upscaled",
        "touching_letters_curve",
        "transparent_gif_dots",
        "transparent_png_letters",
        "voronoi_mosaic",
        "white_cuts_serif",
        "wp_grid_mixed",
    ]
)
