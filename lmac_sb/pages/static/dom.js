// What all pages need to find and make elements; texts enter as text only.
"use strict";
const dom = (() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [
    ...root.querySelectorAll(selector),
  ];
  const data = (id) => JSON.parse(document.getElementById(id).textContent);
  const element = (tag, text, name) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  };
  const number = (value) => {
    if (value === null) return "–";
    if (Number.isInteger(value)) return String(value);
    const size = Math.abs(value);
    return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
  };
  // A word that a tooltip explains, or the word alone.
  const term = (word, tip) => {
    if (!tip) return document.createTextNode(word);
    const button = element("button", undefined, "term");
    button.type = "button";
    button.dataset.tip = tip;
    button.append(element("span", word));
    return button;
  };
  // Pairs of key and element in the order of the keys. Unknown keys come last
  // in either direction, and equal keys stay in the order of their places.
  const sort = (keyed, sign, compare) =>
    keyed.sort(([a, x], [b, y]) => {
      if (a === null || b === null) {
        return (a === null) - (b === null) || x.place - y.place;
      }
      return sign * compare(a, b) || x.place - y.place;
    });
  return { $, all, data, element, number, sort, term };
})();
