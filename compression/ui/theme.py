"""How the page looks: system fonts, one accent colour, and a style sheet for what Gradio lacks.

Nothing is fetched from elsewhere; every colour comes from the theme's variables, so that dark and
light mode both work.
"""

from pathlib import Path

from gradio.themes import Soft

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

THEME = Soft(
    primary_hue="teal", secondary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=MONO
).set(
    block_border_width="1px",
    block_shadow="none",
    block_title_background_fill="transparent",
    block_title_background_fill_dark="transparent",
    block_title_padding="0",
    block_title_text_color="*body_text_color",
    block_title_text_color_dark="*body_text_color",
    block_title_text_weight="600",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    checkbox_border_color="*neutral_400",
    input_border_color="*neutral_200",
    button_large_padding="10px 16px",
    button_large_text_size="*text_md",
    button_secondary_border_color="*neutral_300",
    button_secondary_border_color_dark="*neutral_600",
    button_border_width="1px",
    button_border_width_dark="1px",
)

CSS_FILE = Path(__file__).with_name("page.css")
