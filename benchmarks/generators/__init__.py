"""Small generators of captchas, such as one developer of a site writes in an evening, each an idea of its own.

`older_*` has what sites of 2003-2014 had, `newer_*` of 2010-2024; the `hard_*` were made so that people read nine of
ten and ddddocr less than half. None of the 104 reproduces a library. They serve only to measure (README.md): no reader
that ships is trained on their pictures.
"""

from __future__ import annotations

from . import (
    hard_banks,
    hard_browsers,
    hard_forums,
    hard_scripts,
    newer_clutter,
    newer_letters,
    newer_shapes,
    older_effects,
    older_letters,
)
from .tools import Generator

PLAIN: dict[str, Generator] = {
    **older_letters.GENERATORS,
    **older_effects.GENERATORS,
    **newer_letters.GENERATORS,
    **newer_shapes.GENERATORS,
    **newer_clutter.GENERATORS,
}
HARD: dict[str, Generator] = {
    **hard_banks.GENERATORS,
    **hard_browsers.GENERATORS,
    **hard_forums.GENERATORS,
    **hard_scripts.GENERATORS,
}
GENERATORS: dict[str, Generator] = {**PLAIN, **HARD}

# Never looked at in development: benchmarks/robustness.py tells no more of them than their mean. So that mean shows
# what the reader's schemes are worth where they were not made for it, though some have a near twin among the others
# (discs that turn colors round, words raised on ruled lines, letters seen through each other).
UNSEEN = frozenset(
    [
        "airline_double_contour",
        "curves_clipped_to_letters",
        "embossed_wave",
        "letters_cut_by_arcs",
        "ministry_script_and_pen_stroke",
        "opera_letters_on_a_ribbon",
        "paper_cut_shadow_only",
        "particle_swarm",
        "port_authority_swaying_letters",
        "ransom_letters_overlapping_in_glass",
        "ruled_lines_bump",
        "shard_digits",
        "sine_bands_swap_ink",
        "sliced_strips_dark",
        "svg_evenodd_overlap",
        "telecom_inverting_discs",
        "tiny_digits_in_specks_blown_up",
        "webmail_wave_with_ink_swash",
    ]
)
