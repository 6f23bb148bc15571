"""Small drawers of captchas, such as one developer of a site writes in an evening, each an idea of its own.

`older` has what sites of 2003-2014 had, `newer` of 2010-2024; the `hard_*` were made so that people read nine of ten
and ddddocr less than half. None of the 104 reproduces a library. They serve only to measure, as
benchmarks/accuracy.md tells: no reader that is shipped is trained on their pictures.
"""

from __future__ import annotations

from . import hard_banks, hard_browsers, hard_forums, hard_scripts, newer, older
from .tools import Drawer

PLAIN: dict[str, Drawer] = {**older.DRAWERS, **newer.DRAWERS}
HARD: dict[str, Drawer] = {
    **hard_banks.DRAWERS,
    **hard_browsers.DRAWERS,
    **hard_forums.DRAWERS,
    **hard_scripts.DRAWERS,
}
DRAWERS: dict[str, Drawer] = {**PLAIN, **HARD}

# Nobody who works on the generator's schemes has looked at these, and benchmarks/kinds.py tells no more of them than
# their mean. So that mean shows what the schemes are worth where they were not made for it, though some have a near
# twin among the others (discs that turn colours round, words raised on ruled lines, letters seen through each other).
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
