// Pictures of a sound under its mask: colours, decoding and drawing.
"use strict";
const picture = (() => {
  const STEPS = 64; // values of a picture
  const RANGE = 80; // dB below the loudest cell, down to black
  // What is kept, as matplotlib's afmhot, and what is left out. People who see
  // fewer colours tell the two apart as well; see the tests.
  const hot = (x) =>
    [0, 0.5, 1].map((from) => Math.min(Math.max(2 * x - from, 0), 1));
  const blue = (x) => [0.3 * x, 0.47 * x, 0.7 * x];
  // Level, from 0 to 1, of a sound that is multiplied by a factor.
  const scaled = (level, factor) =>
    Math.max(0, level + (20 * Math.log10(factor)) / RANGE);

  let veil = 1; // how much of the mask is seen
  let least = 0; // a mask below this is taken for 0
  // Colour of a cell: what the mask lets through of its level, over the rest.
  const colour = (level, mask) => {
    const kept = mask < least ? 0 : mask;
    const whole = hot(level);
    const rest = blue(scaled(level, 1 - kept));
    return hot(scaled(level, kept)).map((x, c) => {
      const found = veil * Math.max(x, rest[c]) + (1 - veil) * whole[c];
      return Math.round(255 * found);
    });
  };

  // The colours of all cells, by mask and level, and the scales beside them.
  const palette = new Uint8Array(3 * STEPS * STEPS);
  const mix = (opacity = 1, threshold = 0) => {
    [veil, least] = [opacity, threshold];
    for (let mask = 0; mask < STEPS; mask++) {
      for (let level = 0; level < STEPS; level++) {
        const found = colour(level / (STEPS - 1), mask / (STEPS - 1));
        palette.set(found, 3 * (STEPS * mask + level));
      }
    }
    const scale = (cell) =>
      Array.from({ length: 33 }, (_, i) => `rgb(${colour(...cell(i / 32))})`);
    for (const [name, cell] of [
      ["kept", (x) => [x, 1]],
      ["rest", (x) => [x, 0]],
      ["mask", (x) => [1, x]],
    ]) {
      document.documentElement.style.setProperty(
        `--${name}`,
        `linear-gradient(to right, ${scale(cell)})`
      );
    }
  };

  // A picture that is loaded costs little: it is decoded when it is drawn.
  const load = (base64) => {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    return image;
  };
  const loaded = (image) =>
    image.complete ||
    new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = () => reject(new Error("picture cannot be decoded"));
    });
  const values = (image) => {
    const canvas = document.createElement("canvas");
    const { width, height } = image;
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, width, height).data;
    const found = new Uint8Array(width * height);
    for (let i = 0; i < found.length; i++) found[i] = pixels[4 * i] >> 2;
    return found;
  };

  // Level and mask, as `values` gives them, onto a canvas of their size.
  const draw = (canvas, level, mask) => {
    const { width, height } = canvas;
    // Pixels are set one by one, so the picture need not be on the GPU.
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const made = context.createImageData(width, height);
    const pixels = made.data.fill(255);
    for (let i = 0; i < level.length; i++) {
      const cell = 3 * (STEPS * mask[i] + level[i]);
      for (let c = 0; c < 3; c++) pixels[4 * i + c] = palette[cell + c];
    }
    context.putImageData(made, 0, 0);
  };

  return { draw, load, loaded, mix, values };
})();
