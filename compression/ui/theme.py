"""How the page looks: system fonts, one accent colour, and a style sheet for what Gradio lacks.

Nothing is fetched from elsewhere; every colour comes from the theme's variables, so that dark and
light mode both work. White text stands on primary_700 (5.5 to 1, where WCAG 2 asks for 4.5) or a
darker colour; Soft's own primary_500 would give 2.5 to 1.
"""

from pathlib import Path

from gradio.themes import Soft

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
FILL, FILL_HOVER = "*primary_700", "*primary_800"

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
    block_label_text_color=FILL,
    block_label_background_fill_dark=FILL,
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
    button_primary_background_fill=FILL,
    button_primary_background_fill_dark=FILL,
    button_primary_background_fill_hover=FILL_HOVER,
    button_primary_background_fill_hover_dark=FILL_HOVER,
    button_primary_border_color=FILL,
    button_primary_border_color_dark=FILL,
    button_primary_border_color_hover=FILL_HOVER,
    button_primary_border_color_hover_dark=FILL_HOVER,
    button_secondary_background_fill_hover_dark=FILL,
    checkbox_label_background_fill_selected=FILL,
    checkbox_label_background_fill_selected_dark=FILL,
    checkbox_background_color_selected=FILL_HOVER,
    checkbox_background_color_selected_dark=FILL_HOVER,
    checkbox_border_color_selected=FILL_HOVER,
    checkbox_border_color_selected_dark=FILL_HOVER,
    color_accent=FILL,  # the chosen tab, for one; in dark mode page.css sets a light one
    slider_color=FILL,
    slider_color_dark="*primary_500",
    link_text_color=FILL,
    link_text_color_active=FILL,
    link_text_color_hover=FILL_HOVER,
    link_text_color_visited=FILL,
    link_text_color_visited_dark="*primary_400",
)

CSS_FILE = Path(__file__).with_name("page.css")
