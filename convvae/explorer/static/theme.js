// Dark and light: the style sheet does the page, this does what Bokeh draws on canvases.
"use strict";
const theme = {
  dark: matchMedia("(prefers-color-scheme: dark)").matches,

  apply() {
    document.documentElement.dataset.theme = this.dark ? "dark" : "light";
    const style = getComputedStyle(document.documentElement);
    const [ink, faint, line, card] = ["--ink", "--faint", "--line", "--card"].map((name) => style.getPropertyValue(name));
    for (const doc of globalThis.Bokeh?.documents ?? []) {
      for (const model of doc.all_models) {
        if (model.type.endsWith("Axis")) {
          Object.assign(model, {axis_label_text_color: faint, major_label_text_color: faint, axis_line_color: line,
            major_tick_line_color: line, minor_tick_line_color: null});
        } else if (model.type === "Grid") model.grid_line_color = line;
        else if (model.type === "Legend") model.label_text_color = ink;
        else if (model.type === "GlyphRenderer" && model.glyph.type === "Text") {
          const {glyph, tags} = model;
          if (tags.includes("ink")) glyph.text_color = {value: ink};
          if (tags.includes("faint")) glyph.text_color = {value: faint};
          if (tags.includes("outlined")) glyph.text_outline_color = {value: card};
        } else if (model.type === "GlyphRenderer" && model.glyph.type === "Scatter" && model.tags.length) {
          model.glyph.fill_color = {value: model.tags[this.dark ? 1 : 0]};
        }
      }
    }
  },

  toggle() {
    this.dark = !this.dark;
    this.apply();
  },
};
theme.apply();
