"""Colours, type and shape of the page, on top of Gradio's base theme; the rest is in palette.py and css/."""

import gradio as gr

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.stone,
    radius_size=gr.themes.sizes.radius_md,
    # Fonts that are installed on common systems: a web font would need a network.
    font=["Avenir Next", "Segoe UI", "Noto Sans", "Helvetica Neue", "sans-serif"],
    font_mono=["ui-monospace", "SF Mono", "Consolas", "monospace"],
).set(
    body_background_fill="#f7f5f1",
    body_background_fill_dark="#14171a",
    block_background_fill="#ffffff",
    block_background_fill_dark="#1d2125",
    block_border_width="1px",
    block_shadow="none",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_label_border_width="0px",
    block_label_text_weight="600",
    body_text_color_subdued="#57534e",
    body_text_color_subdued_dark="#b8b4ae",
    block_label_text_color="#44403c",
    block_title_text_color="#44403c",
    block_title_text_weight="600",
    input_background_fill="#faf9f7",
    input_background_fill_dark="#14171a",
    input_border_color="#d6d3d1",
    input_border_color_dark="#3b4046",
    input_border_width="1px",
    border_color_primary_dark="#33383e",
    stat_background_fill="#0f766e",
    stat_background_fill_dark="#2dd4bf",
    button_primary_background_fill="#0f766e",
    button_primary_background_fill_hover="#115e59",
    button_primary_background_fill_dark="#0f766e",
    button_primary_background_fill_hover_dark="#115e59",
    button_primary_text_color="#ffffff",
    button_primary_text_color_dark="#ffffff",
)
