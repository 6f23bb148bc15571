"""How the page looks: colors, fonts, and the small scripts that run in the browser."""

from __future__ import annotations

from typing import Any

from captcha_reader.files import ROOT

STYLE_SHEET = ROOT / "assets" / "page.css"
# Gradio applies the style sheet inside its padding alone: a phone has no room for 32 pixels on either side.
HEAD = "<style>@media (max-width: 640px) { .gradio-container > .app { padding: 10px !important; } }</style>"

# Fonts that a browser has anyway: the page loads none.
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]
# When the page is there. Gradio gives the pictures of examples no names, which a screen reader needs; they come late.
# A file that is no picture, and a TIFF, which browsers do not draw, leave no icon of a broken picture.
ON_LOAD = """() => {
  const name = () => document.querySelectorAll(".gallery-item img").forEach((img) => {
    const file = decodeURIComponent(img.src.split("/").pop());
    if (file) img.closest("button").setAttribute("aria-label", `Example ${file}`);
  });
  name();
  new MutationObserver(name).observe(
    document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ["src"]});
  const mark = (broken) => (event) => {
    if (event.target.tagName === "IMG" && event.target.closest("#picture"))
      event.target.closest("#picture").classList.toggle("broken", broken);
  };
  document.addEventListener("error", mark(true), true);
  document.addEventListener("load", mark(false), true);
}"""
# A correction, and the note on it, go with the picture that they are for. A picture is told of late and twice: what was
# typed while it was on its way stays, and so must not be written anew.
TYPED = "(image) => { window.typedFor = image?.path; }"
TIDY = """(image, note) => {
  const [before, now] = [window.typedFor, image?.path];
  const box = document.querySelector("#correction :is(input, textarea)");
  if (before && before !== now && box.value) {
    box.value = "";
    box.dispatchEvent(new Event("input", {bubbles: true}));
  }
  window.typedFor = now;
  return before === now ? [note, {__type__: "update"}] : ["", {__type__: "update", visible: false}];
}"""
COPY = """element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  navigator.clipboard.writeText(button.dataset.copy).then(() => {
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }, () => {});
});"""


def theme(gr: Any) -> Any:
    """Calm cards on a tinted ground; all fonts are the browser's."""
    soft = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        font=FONTS,
        font_mono=MONO_FONTS,
        radius_size=gr.themes.sizes.radius_lg,
    )
    return soft.set(
        body_background_fill="#f4f7f6",
        body_background_fill_dark="#0d1416",
        body_text_color="#16262b",
        body_text_color_dark="#e8f0f0",
        body_text_color_subdued="#5a6b70",
        body_text_color_subdued_dark="#9fb1b5",
        block_background_fill="#ffffff",
        block_background_fill_dark="#162125",
        block_border_color="#dfe6e5",
        block_border_color_dark="#2a3a3f",
        block_border_width="1px",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="#5a6b70",
        block_label_text_color_dark="#9fb1b5",
        block_label_text_weight="600",
        block_title_text_color="#5a6b70",
        block_title_text_color_dark="#9fb1b5",
        block_title_text_weight="600",
        block_info_text_color="#5a6b70",
        block_info_text_color_dark="#9fb1b5",
        border_color_primary="#dfe6e5",
        border_color_primary_dark="#2a3a3f",
        input_background_fill="#f8faf9",
        input_background_fill_dark="#101a1d",
        input_border_color="#cfd9d8",
        input_border_color_dark="#35484e",
        button_border_width="1px",
        button_border_width_dark="1px",
        button_primary_border_color="#0b6e69",
        button_primary_border_color_dark="#0f7d77",
        button_primary_background_fill="#0b6e69",
        button_primary_background_fill_hover="#095c58",
        button_primary_background_fill_dark="#0f7d77",
        button_primary_background_fill_hover_dark="#14918a",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#1b282d",
        button_secondary_border_color="#cfd9d8",
        button_secondary_border_color_dark="#35484e",
        slider_color="#0b6e69",
        slider_color_dark="#14918a",
        color_accent="#0b6e69",
        table_odd_background_fill_dark="#162125",
        table_even_background_fill_dark="#1b282d",
        link_text_color="#0b6e69",
        link_text_color_dark="#5fd6c8",
        checkbox_background_color_selected="#0b6e69",
        checkbox_background_color_selected_dark="#0f7d77",
    )
