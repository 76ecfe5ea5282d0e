// Tooltips of all elements with data-tip, by mouse, keyboard and touch.
"use strict";
(() => {
  // Shown while the mouse is on a word or the focus is, and after a touch.
  const tip = document.getElementById("tip");
  let explained = null; // the word whose tooltip is shown
  const hideTip = () => {
    explained?.removeAttribute("aria-describedby");
    explained = null;
    tip.hidden = true;
  };
  const showTip = (word) => {
    if (word === explained) return;
    hideTip();
    explained = word;
    tip.textContent = word.dataset.tip;
    tip.hidden = false;
    word.setAttribute("aria-describedby", tip.id);
    const box = word.getBoundingClientRect();
    const { width, height } = tip.getBoundingClientRect();
    const right = document.documentElement.clientWidth - width - 8;
    const below = box.bottom + height + 8 < innerHeight;
    tip.style.left = `${scrollX + Math.max(8, Math.min(box.left, right))}px`;
    tip.style.top = `${scrollY + (below ? box.bottom : box.top - height)}px`;
  };
  const wordAt = (event) => event.target.closest?.("[data-tip]");
  for (const kind of ["mouseover", "focusin", "click"]) {
    document.addEventListener(kind, (event) => {
      const word = wordAt(event);
      // The page may move under a mouse that rests, and the mouse to the tip.
      const stays =
        kind === "mouseover" &&
        (explained === document.activeElement || tip.contains(event.target));
      if (word) showTip(word);
      else if (!stays) hideTip();
    });
  }
  document.addEventListener("focusout", hideTip);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
  });
})();
