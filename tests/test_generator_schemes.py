"""Styles, random schemes, and random numbers: repeatable, independent of each other, with a part held out."""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from captcha_generator import GENERATOR_VERSION, CaptchaSettings, generate_captcha, render_captcha, render_image
from captcha_reader.config import ALPHANUMERIC
from captcha_reader.errors import UserError
from captcha_reader.generator import schemes
from captcha_reader.generator.canvas import Canvas
from captcha_reader.generator.fonts import find_fonts, font_list
from captcha_reader.generator.randomness import Stream
from captcha_reader.generator.registry import OPS, Op, Range, Stage, ranged, register
from captcha_reader.generator.schemes import HELD_OUT_SCHEMES, SCHEMES, get_style, random_scheme
from captcha_reader.generator.shards import iter_captchas
from captcha_reader.generator.styles import STYLES, Style, load_style, style_from_dict, style_to_yaml
from captcha_reader.images import open_image
from captcha_reader.text import Alphabet

ROOT = Path(__file__).resolve().parent.parent
HASHES = Path(__file__).with_name("generator_hashes.json")
CHARACTERS = Alphabet.parse(ALPHANUMERIC).characters


# --- random numbers --------------------------------------------------------------------------------------------------


def test_a_stream_depends_on_its_key_alone() -> None:
    stream = Stream("a", 1)
    first = [stream.random() for _ in range(50)]
    stream.restart("b", 1).randbytes(100)
    assert [stream.restart("a", 1).random()] + [stream.random() for _ in range(49)] == first
    assert Stream("a", 2).random() != first[0]
    many = [Stream("mean", i) for i in range(400)]
    drawn = np.array([[s.random() for _ in range(40)] for s in many])
    assert drawn.min() >= 0 and drawn.max() < 1
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.07, "early and late numbers are as even"
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.15
    weighted = Stream("weights", 1).choices("abc", weights=[1, 0, 3], k=4000)
    assert weighted.count("b") == 0 and 900 < weighted.count("a") < 1100
    bits = [Stream("bits", i).getrandbits(k) for k in (1, 52, 60) for i in range(200)]
    assert all(
        low < np.mean(part) < high
        for part, low, high in (
            (bits[:200], 0.4, 0.6),
            (bits[200:400], 0.4 * 2**52, 0.6 * 2**52),
            (bits[400:], 0.4 * 2**60, 0.6 * 2**60),
        )
    )
    choices = [Stream("choice", i).choice("abcd") for i in range(2000)]
    assert all(430 < choices.count(c) < 570 for c in "abcd")


@pytest.fixture
def new_op() -> Iterator[type[Op]]:
    """An op in the registry for as long as a test runs."""

    @register(stage=Stage.WARP, weight=16)
    @dataclass(frozen=True)
    class MirrorEdge(Op):
        """The lower rows show the upper ones upside down."""

        part: Range = ranged((0.1, 0.2), 0.05, 0.2)
        """Of the height."""

        def __call__(self, canvas: Canvas, rng: random.Random) -> None:
            rows = max(1, round(rng.uniform(*self.part) * canvas.height))
            canvas.pixels[-rows:] = canvas.pixels[:rows][::-1]

    schemes.random_scheme.cache_clear()
    yield MirrorEdge
    del OPS[MirrorEdge.name]
    schemes.random_scheme.cache_clear()


SAMPLE = CaptchaSettings((*STYLES, *[SCHEMES] * 12, HELD_OUT_SCHEMES, "rare"), length=(3, 10), seed=2)


def test_a_new_op_changes_no_picture_that_lacks_it(request: pytest.FixtureRequest) -> None:
    schemes.random_scheme.cache_clear()
    before = [render_captcha(i, SAMPLE) for i in range(150)]
    styles = [random_scheme(n) for n in range(150)]
    new = request.getfixturevalue("new_op")
    after = [render_captcha(i, SAMPLE) for i in range(150)]
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert 2 < len(changed) < 40
    for i in changed:
        drawn = get_style(SAMPLE.styles[i % len(SAMPLE.styles)], Stream(f"2/{i}", "style"))
        assert drawn.find(new.name), "it has the new op"
    for old, style in zip(styles, [random_scheme(n) for n in range(150)], strict=True):
        assert style == old or style.find(new.name)


def test_another_op_changes_nothing_of_what_the_others_draw() -> None:
    """Two clutters of one kind keep their own numbers; the third one only comes on top."""
    from captcha_reader.generator.ops.clutter import Spots
    from captcha_reader.generator.ops.marks import Frame

    spots = Spots(count=(9, 9), level=(0, 0), tint=0)
    with_frame, without = (
        np.asarray(generate_captcha("abc", Style(ops), seed=4)[0]).astype(int)
        for ops in ((Frame(level=(0, 0), tint=0, width=(2, 2)), spots), (spots,))
    )
    assert (with_frame[2:-2, 2:-2] == without[2:-2, 2:-2]).all()
    assert (with_frame != without).any()


def test_a_picture_is_the_same_on_any_number_of_workers_in_any_order_and_in_a_fresh_process() -> None:
    alone = [render_captcha(i, SAMPLE) for i in range(14)]
    assert list(iter_captchas(SAMPLE, range(14), workers=1)) == alone
    assert list(iter_captchas(SAMPLE, range(14), workers=4)) == alone
    backwards = [render_captcha(i, SAMPLE) for i in reversed(range(14))]
    assert backwards[::-1] == alone
    code = (
        "import sys, hashlib; from captcha_generator import *; from tests.test_generator_schemes import SAMPLE\n"
        "print(*[hashlib.sha256(b''.join([render_captcha(i, SAMPLE)[0]])).hexdigest() for i in (13, 5, 11)])"
    )
    fresh = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert fresh.stdout.split() == [hashlib.sha256(alone[i][0]).hexdigest() for i in (13, 5, 11)]


def test_an_image_is_what_its_png_holds() -> None:
    for i in range(10):
        pixels, text = render_image(i, SAMPLE)
        png, same = render_captcha(i, SAMPLE)
        picture = np.asarray(open_image(png).convert("RGB"))
        assert text == same and pixels.dtype == np.uint8 and pixels.shape[:2] == picture.shape[:2]
        if pixels.shape[2] == 3:
            assert (pixels == picture).all()


def picture_hashes() -> dict[str, str]:
    """Of every named style 100 / 6 pictures each, and of 100 schemes one each: SHA-256 of pixels and text."""
    named = CaptchaSettings(tuple(STYLES), CHARACTERS, (4, 8), seed=12)
    drawn = CaptchaSettings((SCHEMES, SCHEMES, "rare", SCHEMES, HELD_OUT_SCHEMES), CHARACTERS, (3, 12), seed=12)
    hashes = {}
    for name, settings in (("styles", named), ("schemes", drawn)):
        for i in range(100):
            pixels, text = render_image(i, settings)
            hashes[f"{name}/{i}"] = hashlib.sha256(pixels.tobytes() + text.encode()).hexdigest()[:16]
    return hashes


def test_pictures_change_with_the_version_alone() -> None:
    """To renew the list: python -m tests.test_generator_schemes, after raising GENERATOR_VERSION in render.py."""
    kept = json.loads(HASHES.read_text())
    if kept["libraries"] != libraries():
        pytest.skip(f"drawn with {kept['libraries']}, here are {libraries()}")
    found = picture_hashes()
    assert len(found) == 200
    changed = [name for name, value in found.items() if kept["hashes"].get(name) != value]
    assert kept["version"] == GENERATOR_VERSION, "the list is another version's: renew it"
    assert not changed, f"{len(changed)} of 200 pictures changed ({changed[:5]}): raise GENERATOR_VERSION"


def libraries() -> dict[str, str]:
    """Versions of what draws: another one may round otherwise."""
    import cv2
    import matplotlib
    import PIL
    import skimage

    return {m.__name__: m.__version__ for m in (cv2, matplotlib, np, PIL, skimage)}


# --- schemes ---------------------------------------------------------------------------------------------------------


def test_a_number_names_a_scheme() -> None:
    random_scheme.cache_clear()
    first = [random_scheme(n) for n in range(200)]
    random_scheme.cache_clear()
    assert first == [random_scheme(n) for n in range(200)]
    assert len(set(first)) == 200


def kinds_of(number: int, held_out: bool) -> tuple[str, ...]:
    """The ops of a scheme by which it is held out or not, found from its ops alone where no others took their place."""
    style = random_scheme(number, held_out)
    named = {op.stage: op.name for op in style.ops if "split" in op.tags}
    return tuple(named.get(stage, "none") for stage in schemes.HOW_MANY)


def test_no_combination_of_kinds_is_in_both_parts() -> None:
    race = schemes._race(tuple(OPS.values()))

    def kinds(held_out: bool, count: int) -> set[tuple[str, ...]]:
        found = set()
        for number in range(count):
            style = random_scheme(number, held_out)
            for attempt in range(500):  # the attempt that gave this scheme
                draw = race.run(f"{number}/{attempt}")
                if schemes._draw_scheme(f"{number}/{attempt}", race, draw, held_out, False) == style:
                    found.add(tuple(schemes.split_kinds(race, draw)))
                    break
            else:
                raise AssertionError("the scheme cannot be drawn again")
        return found

    trained, held_out = kinds(False, 300), kinds(True, 40)
    assert len(trained) > 200 and len(held_out) > 30
    assert not trained & held_out


def test_ops_for_training_are_in_no_held_out_scheme_and_the_other_way_round() -> None:
    trained = {op.name for n in range(1500) for op in random_scheme(n).ops}
    held_out = {op.name for n in range(250) for op in random_scheme(n, held_out=True).ops}
    drawn = {name for name, op in OPS.items() if op.weight > 0}
    assert trained == {name for name in drawn if "heldout" not in OPS[name].tags}
    assert not {name for name in held_out if "train_only" in OPS[name].tags}
    assert {name for name in drawn if "heldout" in OPS[name].tags} <= held_out


def test_no_font_is_in_both_parts() -> None:
    fonts = find_fonts(CHARACTERS)
    used: dict[bool, set[str]] = {
        held_out: {path for n in range(300) for path in fonts.choices(random_scheme(n, held_out), "A")}
        for held_out in (False, True)
    }
    assert used[False] and used[True]
    assert not used[False] & used[True]
    assert used[False] | used[True] == set(fonts.paths)


@pytest.mark.parametrize("name", [SCHEMES, HELD_OUT_SCHEMES])
def test_schemes_vary_in_size_alphabet_length_and_mode(name: str) -> None:
    settings = CaptchaSettings((name,), length=(3, 10), seed=4)
    drawn = [render_captcha(i, settings) for i in range(150)]
    pictures = [open_image(png) for png, _ in drawn]
    texts = [text for _, text in drawn]
    assert len({picture.size for picture in pictures}) > 100
    assert {len(text) for text in texts} >= {4, 5, 6, 7}
    assert any(text.isdigit() for text in texts) and any(text.isupper() and text.isalpha() for text in texts)
    heights = [picture.height for picture in pictures]
    assert min(heights) < 35 and max(heights) > 90
    # Light on dark as well as dark on light: the middle of the border's brightness.
    borders = [np.median(np.asarray(picture.convert("L"))[0]) for picture in pictures]
    assert min(borders) < 80 and max(borders) > 220


def test_most_schemes_pile_up_little_clutter_and_some_much() -> None:
    """As the libraries that people use: people misread more than half of messier ones."""
    cluttering = {Stage.UNDER, Stage.ACROSS, Stage.OVER}
    for held_out in (False, True):
        counts = []
        for n in range(300):
            ops = random_scheme(n, held_out).ops
            counts.append(sum(op.stage in cluttering or op.name in ("negatives", "noise", "salt") for op in ops))
        assert 0.75 < np.mean(np.array(counts) <= 2) < 0.95
        assert max(counts) >= 4


def test_rare_schemes_have_what_few_others_have() -> None:
    def odd(**part: bool) -> float:
        return float(np.mean([any("train_only" in op.tags for op in random_scheme(n, **part).ops) for n in range(200)]))

    assert odd(rare=True) > 0.95
    assert odd() < 0.75


def test_almost_every_captcha_of_a_scheme_shows_its_letters() -> None:
    """Drawn with and without letters from the same numbers, a picture differs."""
    visible = 0
    for number in range(60):
        style = random_scheme(number).without("noise", "jpeg", "panels")
        size = CaptchaSettings((style,), seed=number)
        with_letters, text = render_image(0, size)
        hidden = Style(**{**vars_of(style), "ops": tuple(shrunk(op) for op in style.ops)})
        without, _ = render_image(0, CaptchaSettings((hidden,), seed=number), text)
        visible += np.abs(with_letters.astype(int) - without).max() > 25
    assert visible >= 57


def vars_of(style: Style) -> dict:
    return {name: getattr(style, name) for name in Style.__dataclass_fields__}


def shrunk(op: Op) -> Op:
    from dataclasses import replace

    if op.stage is Stage.LAYOUT:
        return replace(op, size=(0.001, 0.001))
    return replace(op, size=(1, 1)) if op.name == "bitmap" else op


def test_a_scheme_keeps_to_its_characters_and_lengths_as_far_as_they_are_asked_for() -> None:
    style = Style(characters="0123456789", length=(4, 5))
    for asked, allowed, lengths in (
        (CHARACTERS, set("0123456789"), {4, 5}),
        ("ab12", set("12"), {4, 5}),
        ("xyz", set("xyz"), {4, 5}),
    ):
        texts = [render_captcha(i, CaptchaSettings((style,), asked, (3, 10)))[1] for i in range(40)]
        assert set("".join(texts)) == allowed
        assert {len(text) for text in texts} == lengths
    texts = [render_captcha(i, CaptchaSettings((style,), "ab12", (6, 7)))[1] for i in range(10)]
    assert {len(text) for text in texts} == {6}  # the nearest length that was asked for


def test_words_have_the_length_and_the_letters_that_were_asked_for() -> None:
    for words, test in (("lower", str.islower), ("upper", str.isupper), ("title", str.istitle)):
        style = Style(words=words, length=(3, 12))  # type: ignore[arg-type]
        texts = [render_image(i, CaptchaSettings((style,), length=(3, 12)))[1] for i in range(40)]
        assert all(test(text) and 3 <= len(text) <= 12 for text in texts)
        assert len({len(text) for text in texts}) > 5
    digits = [render_image(i, CaptchaSettings((Style(words="lower"),), "0123456789"))[1] for i in range(5)]
    assert all(text.isdigit() for text in digits), "where the alphabet has no letters"


def test_schemes_show_digits_alone_in_six_to_ten_places_and_words() -> None:
    drawn = [random_scheme(n) for n in range(1000)]
    digits = [style for style in drawn if style.characters == "0123456789"]
    assert sum(style.length[1] >= 6 for style in digits) > 20  # type: ignore[index]
    assert sum(bool(style.words) for style in drawn) > 30
    assert max(style.length[1] for style in drawn) == 12  # type: ignore[index]


# --- styles in YAML --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STYLES)
def test_a_named_style_can_be_written_and_read_again(name: str, tmp_path: Path) -> None:
    path = tmp_path / "style.yaml"
    path.write_text(style_to_yaml(STYLES[name]))
    assert load_style(str(path)) == STYLES[name]
    assert generate_captcha("abc", str(path))[0].tobytes() == generate_captcha("abc", name)[0].tobytes()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("ops: [elastik]", ["op 1", "'elastik'", "elastic"]),
        ("ops: [{elastic: {amplitud: 3}}]", ["op 1 (elastic)", "'amplitud'", "amplitude, cell"]),
        ("ops: [blur, {elastic: {amplitude: big}}]", ["op 2 (elastic)", "amplitude is 'big'", "number"]),
        ("ops: [{elastic: {amplitude: [3, 1]}}]", ["amplitude is [3, 1]", "[1, 3]"]),
        ("ops: [{elastic: {amplitude: -1}}]", ["amplitude is -1", "0 or more"]),
        ("ops: [{jpeg: {quality: 300}}]", ["jpeg", "quality is 300", "100 or less"]),
        ("ops: [{lines: {kinds: [zigzag]}}]", ["lines", "'zigzag'", "straight"]),
        ("ops: [{dither: {kind: other}}]", ["dither", "kind", "'random', 'ordered'"]),
        ("ops: [{ink: {per_letter: 1}}]", ["ink", "per_letter", "true or false"]),
        ("ops: [{noise: {deviation: .nan}}]", ["noise", "deviation", "number"]),
        ("ops: [[blur]]", ["op 1", "name"]),
        ("ops: [{blur: 3}]", ["op 1 (blur)", "fields"]),
        ("ops: blur", ["list of ops"]),
        ("ops: [{elastic: {amplitude: [1, 2, 3]}}]", ["amplitude", "give a number, or two as [lowest, highest]"]),
        ("ops: [{lines: {kinds: []}}]", ["kinds", "give a list of names"]),
        ("fonts: 7", ["fonts is 7", "give a list of names"]),
        ("length: 0", ["length is [0, 0]", "1 or more characters"]),
        ("hight: 30", ["'hight'", "height"]),
        ("height: 1", ["height", "8 to 2000"]),
        ("mode: CMYK", ["mode", "'RGBA'"]),
        ("ops: [{resample: {factor: 0}}]", ["op 1 (resample)", "factor is 0", "1 or more"]),
        ("ops: [{striped_ground: {pitch: [0, 5]}}]", ["striped_ground", "pitch is [0, 5]", "0.5 or more"]),
        ("ops: [{worn: {part: 7}}]", ["worn", "part is 7", "1 or less"]),
        ("ops: [{spots: {radius: -3}}]", ["spots", "radius is -3", "0 or more"]),
        ("ops: [{thick_curve: {width: 1000}}]", ["thick_curve", "width is 1000", "or less"]),
        ("ops: [{spots: {count: 1" + 400 * "0" + "}}]", ["spots", "count", "or less"]),
        ("ops: [{levels: {count: .inf}}]", ["levels", "count", "number"]),
        ("font_choice: [0.5, 1.5]", ["font_choice", "1 or less"]),
        ("font_choice: -2", ["font_choice", "0 or more"]),
        ("font_choice: [true]", ["font_choice", "number"]),
        ("length: [3, 33]", ["length is [3, 33]", "32 at most"]),
        ("characters: 'a b'", ["characters", "' '", "cannot be printed"]),
        ("characters: 2024-19-45", ["is not YAML", "month"]),
        ("ops: " + 5000 * "[" + 5000 * "]", ["is not YAML"]),
        ("- blur", ["ops:"]),
        ("ops: [", ["is not YAML"]),
    ],
)
def test_a_mistake_in_a_style_is_named(tmp_path: Path, written: str, words: list[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(written)
    with pytest.raises(UserError) as raised:
        get_style(str(path))
    assert "mine.yaml" in str(raised.value) and all(word in str(raised.value) for word in words), raised.value


def test_a_font_that_is_not_there_is_named(tmp_path: Path) -> None:
    (mine := tmp_path / "mine.yaml").write_text("fonts: [DejaVuSans, NoSuchFont]\n")
    with pytest.raises(UserError, match=r"mine\.yaml: fonts is .*: there is no font 'NoSuchFont': choose from DejaVu"):
        generate_captcha(style=str(mine))
    own = tmp_path / "NoSuchFont.ttf"
    own.write_bytes(next(Path(path) for path in find_fonts("a").paths).read_bytes())
    assert generate_captcha("a", str(mine), fonts=str(tmp_path))[1] == "a", "it may be one of --fonts"


def test_places_in_the_list_of_fonts_go_from_the_first_to_the_last() -> None:
    fonts = find_fonts("a")
    for place, path in ((0, fonts.paths[0]), (1, fonts.paths[-1])):
        style = style_from_dict({"font_choice": [place]})
        assert fonts.choices(style, "a") == (path,)


def test_a_style_that_is_not_there_is_explained() -> None:
    with pytest.raises(UserError, match="cannot be read"):
        get_style("nowhere.yaml")
    with pytest.raises(UserError, match="schemes, rare, heldout"):
        get_style("skeems")


def test_a_style_of_few_lines_draws() -> None:
    style = style_from_dict({"height": 40, "width": [90, 120], "characters": "0123456789", "ops": ["hollow", "wave"]})
    picture, text = generate_captcha(style=style, index=3)
    assert picture.height == 40 and 90 <= picture.width <= 120 and text.isdigit()


# --- five minutes ----------------------------------------------------------------------------------------------------


def code_block(path: Path, language: str) -> str:
    """The first block of that language in a Markdown file."""
    found = re.search(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"{path.name} has no block of {language}"
    return found[1]


def test_the_style_in_the_documents_draws(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(code_block(ROOT / "docs" / "generator.md", "yaml"))
    picture, text = generate_captcha(style=str(tmp_path / "mine.yaml"))
    assert picture.height == 50 and 5 <= len(text) <= 6 and not set(text) & set("01IO")


def test_an_op_in_a_new_file_is_listed_drawn_shown_and_tested_without_any_other_edit(tmp_path: Path) -> None:
    """A copy of the package with one more file in ops/."""
    import shutil

    shutil.copytree(ROOT / "captcha_reader", tmp_path / "captcha_reader", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("docs", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.png", "*.md"))
    for name in ("captcha_generator.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    code = code_block(ROOT / "CONTRIBUTING.md", "python").replace("weight=3", "weight=400")
    (tmp_path / "captcha_reader/generator/ops/darken.py").write_text(code)

    def run(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    assert "darken               All is darker. weight 400" in run("captcha_generator.py", "--list")
    count = "sum(random_scheme(n).find('darken') is not None for n in range(200))"
    assert 10 < int(run("-c", f"from captcha_reader.generator.schemes import random_scheme; print({count})")) < 60
    run("docs/draw_gallery.py", "--only", "darken", "--out", "out")
    assert (tmp_path / "out" / "darken.png").stat().st_size > 1000
    run("-m", "pytest", "-n", "0", "-q", "tests/test_generator_ops.py", "-k", "darken", "--noconftest")


def test_the_font_list_names_every_font_with_its_hash() -> None:
    listed = font_list()
    paths = find_fonts("Aa0").paths
    assert [row["name"] for row in listed] == sorted(Path(path).name for path in paths)
    one = next(path for path in paths if path.endswith("DejaVuSans.ttf"))
    digest = hashlib.sha256(Path(one).read_bytes()).hexdigest()
    assert {"name": "DejaVuSans.ttf", "sha256": digest} in listed


if __name__ == "__main__":
    kept = {"version": GENERATOR_VERSION, "libraries": libraries(), "hashes": picture_hashes()}
    HASHES.write_text(json.dumps(kept, indent=1) + "\n")
