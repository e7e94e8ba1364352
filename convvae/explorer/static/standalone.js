// The page without a server: pictures come from the sheets inside it.
"use strict";
const still = {
  contents: JSON.parse(document.getElementById("contents").textContent),
  cell: null,

  async start() {
    const {contents} = this;
    const bytes = Uint8Array.from(atob(contents.points), (letter) => letter.charCodeAt(0));
    this.points = new Float32Array(bytes.buffer);
    [this.images, this.reconstructions, this.manifold] =
      await Promise.all([contents.images, contents.reconstructions, contents.manifold].map((address) => this.load(address)));
    const canvas = document.getElementById("manifold");
    [canvas.width, canvas.height] = [this.manifold.width, this.manifold.height];
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      this.decoded(Math.floor((event.clientX - box.left) / box.width * contents.grid),
        Math.floor((event.clientY - box.top) / box.height * contents.grid));
    });
    canvas.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
      if (!step) return;
      event.preventDefault();
      const [column, row] = this.cell ?? [contents.grid >> 1, contents.grid >> 1];
      this.decoded(column + step[0], row + step[1]);
    });
    document.getElementById("theme").onclick = () => theme.toggle();
    this.show(0);
    this.outline();
    document.body.classList.add("ready");
  },

  load(address) {
    return new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error("a sheet of pictures cannot be decoded"));
      image.src = address;
    });
  },

  // The nearest dot, distances as the map shows them.
  point(x, y) {
    const [left, right, bottom, top] = this.contents.frame;
    let [best, least] = [0, Infinity];
    for (let place = 0; place < this.contents.count; place++) {
      const across = (this.points[2 * place] - x) / (right - left);
      const up = (this.points[2 * place + 1] - y) / (top - bottom);
      const distance = across * across + up * up;
      if (distance < least) [best, least] = [place, distance];
    }
    this.show(best);
  },

  show(place) {
    const {names, kinds, count} = this.contents;
    const columns = Math.ceil(Math.sqrt(count));
    const kind = kinds[place] && `, ${kinds[place]}`;
    this.draw("left", this.images, place, columns, `real image ${names[place]}${kind}`);
    this.draw("right", this.reconstructions, place, columns, "its reconstruction");
  },

  decoded(column, row) {
    const {grid, frame: [left, right, bottom, top]} = this.contents;
    column = Math.min(Math.max(column, 0), grid - 1);
    row = Math.min(Math.max(row, 0), grid - 1);
    this.cell = [column, row];
    const x = left + (right - left) * (column + 0.5) / grid;
    const y = top - (top - bottom) * (row + 0.5) / grid;
    this.point(x, y);
    this.draw("right", this.manifold, row * grid + column, grid, `decoded at (${x.toFixed(2)}, ${y.toFixed(2)})`);
    document.getElementById("left-words").textContent += ", the nearest";
    this.outline();
  },

  outline() {
    const canvas = document.getElementById("manifold");
    const pen = canvas.getContext("2d");
    pen.drawImage(this.manifold, 0, 0);
    if (!this.cell) return;
    const [height, width] = this.contents.tile;
    pen.strokeStyle = "#e6007e";
    pen.lineWidth = 3;
    pen.strokeRect(this.cell[0] * width + 1.5, this.cell[1] * height + 1.5, width - 3, height - 3);
  },

  draw(name, sheet, place, columns, words) {
    const [height, width] = this.contents.tile;
    const canvas = document.getElementById(name);
    [canvas.width, canvas.height] = [width, height];
    const left = place % columns * width;
    const top = Math.floor(place / columns) * height;
    canvas.getContext("2d").drawImage(sheet, left, top, width, height, 0, 0, width, height);
    document.getElementById(`${name}-words`).textContent = words;
  },
};
still.start();
addEventListener("load", () => { const wait = () => (Bokeh.documents.length ? theme.apply() : setTimeout(wait, 30)); wait(); });
