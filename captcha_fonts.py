"""Old place of names that now stand in `captcha_reader.generator.fonts`."""

from captcha_reader.generator.fonts import Fonts, Glyph, drawable, find_fonts, load_glyph

__all__ = ["Fonts", "Glyph", "drawable", "find_fonts", "load_glyph"]
