// Names of classes and files enter the page as text only, never as markup.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [
    ...root.querySelectorAll(selector),
  ];
  const data = (id) => JSON.parse(document.getElementById(id).textContent);
  const index = data("index");
  const SOUNDS = ["original", "explanation", "residual"];
  const ARROWS = { 1: " ↑", 0: "", "-1": " ↓" };
  const WHITE = 252; // the pictures' largest value
  const MEANINGS = new Map(index.verdicts);

  // Stops of matplotlib's magma, evenly spaced.
  const MAGMA = (
    "000004 1c1044 4f127b 812581 b5367a e55064 fb8761 fec287 fcfdbf"
  )
    .split(" ")
    .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const COLOURS = Array.from({ length: WHITE + 1 }, (_, value) => {
    const place = (value / WHITE) * (MAGMA.length - 1);
    const i = Math.min(Math.floor(place), MAGMA.length - 2);
    return MAGMA[i].map((x, c) => x + (place - i) * (MAGMA[i + 1][c] - x));
  });
  const VEIL = [126, 136, 146];

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
  const probability = (value) => (value === null ? "–" : value.toFixed(3));
  const measure = (clip, name) =>
    Object.hasOwn(clip.metrics, name) ? clip.metrics[name] : null;
  const outcome = (clip) =>
    clip.right === null ? "unknown" : clip.right ? "right" : "wrong";
  const STABLE = { null: "", true: ", stable", false: ", not stable" };
  const isGood = (clip) => clip.verdict === "faithful" && clip.stable !== false;

  // ------------------------------------------------------------- pictures

  const decode = (base64) =>
    new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => {
        const canvas = document.createElement("canvas");
        canvas.width = image.width;
        canvas.height = image.height;
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        const { width, height } = image;
        const pixels = context.getImageData(0, 0, width, height).data;
        resolve({ width, height, values: pixels.filter((_, i) => i % 4 === 0) });
      };
      image.onerror = () => reject(new Error("picture cannot be decoded"));
      image.src = `data:image/png;base64,${base64}`;
    });

  const draw = (card) => {
    if (!card.level) return;
    const { width, height, values } = card.level;
    const opacity = $("#opacity").value / 100;
    const threshold = $("#threshold").value / 100;
    // Pixels are set one by one, so the picture need not be on the GPU.
    const context = card.canvas.getContext("2d", { willReadFrequently: true });
    const picture = context.createImageData(width, height);
    const pixels = picture.data;
    for (let i = 0; i < values.length; i++) {
      const kept = card.mask.values[i] / WHITE;
      const veil = opacity * (kept < threshold ? 1 : 1 - kept);
      const colour = COLOURS[values[i]];
      for (let c = 0; c < 3; c++) {
        pixels[4 * i + c] = colour[c] + veil * (VEIL[c] - colour[c]);
      }
      pixels[4 * i + 3] = 255;
    }
    context.putImageData(picture, 0, 0);
  };

  // Only pictures near the screen are kept: 200 would fill the memory.
  const show = async (card) => {
    card.near = true;
    if (card.level) return;
    const { key } = card;
    const { level, mask } = data(key);
    const pictures = await Promise.all([decode(level), decode(mask)]);
    // By now it may have left the screen, or show its other mask.
    if (!card.near || card.key !== key) return;
    [card.level, card.mask] = pictures;
    card.canvas.width = card.level.width;
    card.canvas.height = card.level.height;
    draw(card);
  };
  const release = (card) => {
    card.near = false;
    card.level = card.mask = null;
    card.canvas.width = card.canvas.height = 0;
  };

  // -------------------------------------------------------------- players

  let playing = null; // the card whose sounds are loaded
  let current = null; // the card that the keys act on

  const move = (card, seconds) => {
    card.seconds = Math.min(Math.max(seconds, 0), card.clip.seconds);
    const share = card.seconds / card.clip.seconds;
    card.playhead.style.left = `calc(${share} * (100% - 2px))`;
    card.position.value = card.seconds;
    const text = `${card.seconds.toFixed(1)} of ${card.clip.seconds.toFixed(1)} s`;
    card.position.setAttribute("aria-valuetext", text);
    card.time.textContent = text;
  };

  const mark = (card, isPlaying) => {
    card.play.textContent = isPlaying ? "Pause" : "Play";
    card.play.setAttribute("aria-pressed", isPlaying);
  };

  const follow = (card) => {
    cancelAnimationFrame(card.frame);
    const audio = card.audios?.[card.sound];
    if (!audio || audio.paused) return;
    move(card, audio.currentTime);
    card.frame = requestAnimationFrame(() => follow(card));
  };

  const unload = (card) => {
    mark(card, false);
    for (const audio of card.audios ?? []) {
      audio.pause();
      audio.removeAttribute("src");
      audio.remove();
    }
    card.audios = null;
  };

  const load = (card) => {
    if (card.audios) return;
    if (playing) unload(playing);
    playing = card;
    card.problem.textContent = "";
    card.audios = data(card.key).sounds.map((source, i) => {
      const audio = element("audio");
      audio.dataset.sound = SOUNDS[i];
      audio.preload = "auto";
      audio.addEventListener("play", () => {
        mark(card, true);
        follow(card);
      });
      audio.addEventListener("pause", () => {
        if (card.audios?.[card.sound] === audio) mark(card, false);
      });
      audio.addEventListener("ended", () => move(card, 0));
      audio.addEventListener("error", () => {
        if (card.audios?.includes(audio)) {
          card.problem.textContent = `The ${SOUNDS[i]} sound cannot be played here.`;
        }
      });
      audio.src = source;
      card.element.append(audio);
      return audio;
    });
  };

  const start = (card) => {
    load(card);
    const audio = card.audios[card.sound];
    audio.currentTime = card.seconds < card.clip.seconds ? card.seconds : 0;
    // The error event reports a failure; otherwise the user has paused.
    audio.play().catch(() => {});
  };

  const toggle = (card) => {
    const audio = card.audios?.[card.sound];
    if (audio && !audio.paused) audio.pause();
    else start(card);
  };

  const seek = (card, seconds) => {
    move(card, seconds);
    if (card.audios) card.audios[card.sound].currentTime = card.seconds;
  };

  const choose = (card, sound) => {
    const before = card.audios?.[card.sound];
    const goesOn = before && !before.paused;
    if (goesOn) move(card, before.currentTime);
    card.sound = sound;
    card.choices.forEach((button, i) =>
      button.setAttribute("aria-pressed", i === sound)
    );
    if (goesOn && card.audios[sound] !== before) {
      before.pause();
      start(card);
    }
  };

  // ---------------------------------------------------------------- cards

  const describe = (clip) => {
    const head =
      `Spectrogram of ${clip.id}, ${clip.seconds.toFixed(1)} seconds, ` +
      `0 to ${number(clip.kilohertz)} kHz, under the mask for ${clip.explained}. `;
    if (!clip.spread) return head + "The mask keeps nothing.";
    const [t0, t1, f0, f1] = clip.spread.map((x) => x.toFixed(1));
    return (
      head +
      `The mask keeps ${(100 * clip.area).toFixed(0)} %, most of it from ` +
      `${t0} to ${t1} s and from ${f0} to ${f1} kHz.`
    );
  };

  const fillTable = (body, clip) => {
    body.replaceChildren();
    for (const [name, ...values] of clip.bars) {
      const row = element("tr");
      const head = element("th", name);
      head.scope = "row";
      if (name === clip.explained) row.className = "explained";
      if (name === clip.label) head.append(element("span", "label", "note"));
      row.append(head);
      for (const value of values) {
        const cell = element("td", probability(value));
        const bar = element("span", undefined, "bar");
        const fill = element("i");
        fill.style.width = `${100 * (value ?? 0)}%`;
        bar.append(fill);
        cell.append(bar);
        row.append(cell);
      }
      body.append(row);
    }
  };

  // A long clip has hundreds of windows, which are made only on request.
  const fillWindows = (card) => {
    card.windows.replaceChildren();
    for (const window of card.view.windows) {
      const row = element("tr");
      const place = element("td");
      const button = element("button", `${window.start.toFixed(1)}\u00a0s`);
      button.type = "button";
      button.title = `Go to ${button.textContent}`;
      button.addEventListener("click", () => seek(card, window.start));
      place.append(button);
      const decided = element("td", window.decision);
      decided.append(element("span", window.verdict, "note"));
      row.append(
        place,
        decided,
        ...[window.p, window.p_in, window.p_out].map((value) =>
          element("td", probability(value))
        )
      );
      card.windows.append(row);
    }
  };

  const fillMetrics = (list, clip) => {
    list.replaceChildren();
    for (const [name, direction] of index.metrics) {
      if (!Object.hasOwn(clip.metrics, name)) continue;
      const pair = element("div");
      pair.append(
        element("dt", name + ARROWS[direction]),
        element("dd", number(clip.metrics[name]))
      );
      list.append(pair);
    }
    list.hidden = !list.children.length;
  };

  // Everything that depends on the mask, except picture and sounds.
  const fillCard = (card) => {
    const { element: article, view } = card;
    card.canvas.setAttribute("aria-label", describe(view));
    const badge = $(".verdict", article);
    badge.textContent = view.verdict + STABLE[view.stable];
    badge.classList.toggle("good", isGood(view));
    badge.title = [
      MEANINGS.get(view.verdict),
      ...Object.entries(view.agreement).map(
        ([name, value]) => `agreement, ${name}: ${number(value)}`
      ),
    ].join("; ");
    fillTable($(".facts tbody", article), view);
    fillMetrics($(".metrics", article), view);
    if ($(".windows", article).open) fillWindows(card);
    card.switches.forEach((button, i) =>
      button.setAttribute("aria-pressed", i === card.worn)
    );
  };

  // The decoder's mask (0), or the refined one (1).
  const wear = (card, worn) => {
    if (worn === card.worn) return;
    const audio = card.audios?.[card.sound];
    const goesOn = audio && !audio.paused;
    if (goesOn) move(card, audio.currentTime);
    unload(card);
    card.worn = worn;
    [card.view, card.key] = card.views[worn];
    fillCard(card);
    card.level = card.mask = null;
    if (card.near) show(card);
    if (goesOn) start(card);
  };

  const makeCard = (clip, i) => {
    const article = $("#card").content.firstElementChild.cloneNode(true);
    const part = (selector) => $(selector, article);
    const card = {
      clip, // used by filters and order
      views: [
        [clip.unrefined, `clip-${i}-unrefined`],
        [clip, `clip-${i}`],
      ],
      worn: 1, // index of the mask that is shown
      view: clip,
      key: `clip-${i}`,
      place: i,
      element: article,
      canvas: part("canvas"),
      playhead: part(".playhead"),
      position: part(".position"),
      play: part(".play"),
      choices: all(".sounds button", article),
      switches: all(".masks button", article),
      windows: part(".windows tbody"),
      time: part(".time"),
      problem: part(".problem"),
      sound: 0,
      near: false,
    };
    const title = part("h2");
    title.textContent = clip.decision;
    title.id = `title-${i}`;
    part(".origin").id = `origin-${i}`;
    article.setAttribute("aria-labelledby", `${title.id} origin-${i}`);
    const found = outcome(clip);
    part(".outcome").classList.add(found);
    part(".outcome").textContent = {
      right: "right",
      wrong: `wrong, the label is ${clip.label}`,
      unknown: "no label",
    }[found];
    const origin = [clip.id];
    if (clip.file !== null && clip.file !== clip.id) origin.push(clip.file);
    origin.push(`${clip.seconds.toFixed(1)}\u00a0s`);
    const above = clip.parents ? ` (${clip.parents})` : "";
    if (clip.explained !== clip.decision || above) {
      origin.push(`explained: ${clip.explained}${above}`);
    }
    origin.push(...clip.notes);
    if (index.made.length > 1) origin.push(`by ${clip.made}`);
    if (clip.threshold !== null) {
      origin.push(`sounds of the mask cut at ${number(clip.threshold)}`);
    }
    const steps = clip.refine_steps;
    const refined = `refined, ${steps} ${steps === 1 ? "step" : "steps"}`;
    if (steps && !clip.unrefined) origin.push(`mask ${refined}`);
    part(".origin").textContent = origin.join(" · ");
    part(".masks").hidden = !clip.unrefined;
    card.switches[1].textContent = refined[0].toUpperCase() + refined.slice(1);
    part(".axis .top").textContent = `${number(clip.kilohertz)}\u00a0kHz`;
    card.position.max = clip.seconds;
    card.position.step = clip.seconds / 100;
    card.position.setAttribute("aria-label", "Position in the sound");
    const windows = part(".windows");
    windows.hidden = !clip.windows.length;
    $("summary", windows).textContent = `${clip.windows.length} windows`;
    windows.addEventListener("toggle", () => {
      if (windows.open) fillWindows(card);
    });
    fillCard(card);
    move(card, 0);

    card.play.addEventListener("click", () => toggle(card));
    card.choices.forEach((button, sound) =>
      button.addEventListener("click", () => choose(card, sound))
    );
    card.switches.forEach((button, worn) =>
      button.addEventListener("click", () => wear(card, worn))
    );
    card.position.addEventListener("input", () =>
      seek(card, Number(card.position.value))
    );
    part(".picture").addEventListener("pointerdown", (event) => {
      const box = card.canvas.getBoundingClientRect();
      seek(card, ((event.clientX - box.left) / box.width) * clip.seconds);
    });
    const take = () => {
      current = card;
    };
    article.addEventListener("focusin", take);
    article.addEventListener("pointerdown", take);
    return card;
  };

  const cards = index.clips.map(makeCard);
  const cardOf = new Map(cards.map((card) => [card.element, card]));
  const shown = () =>
    all(".clip:not([hidden])").map((article) => cardOf.get(article));

  // ---------------------------------------------------- filters and order

  const option = (select, value, text) => {
    const made = element("option", text);
    made.value = value;
    select.append(made);
  };
  const ranks = [...MEANINGS.keys()]; // the good one first
  const SORTS = [
    ["Clip", (clip, place) => place],
    ["Decision", (clip) => clip.decision],
    ["Verdict", (clip) => ranks.indexOf(clip.verdict)],
    ["Before", (clip) => clip.probabilities[0]],
    ["Inside", (clip) => clip.probabilities[1]],
    ["Outside", (clip) => clip.probabilities[2]],
    ...index.metrics.map(([name]) => [
      name,
      (clip) => measure(clip, name),
    ]),
  ];

  const compare = (a, b) =>
    typeof a === "string" ? a.localeCompare(b) : a - b;
  const update = () => {
    const decision = $("#decision").value;
    const judged = $("#verdict").value;
    const wanted = $("#outcome").value;
    const limited = $("#metric").value;
    for (const id of ["#low", "#high"]) $(id).disabled = limited === "";
    const low = $("#low").valueAsNumber;
    const high = $("#high").valueAsNumber;
    const name = limited && index.metrics[limited][0];
    const matches = ({ clip }) => {
      if (decision && index.clips[decision].decision !== clip.decision) {
        return false;
      }
      if (judged && clip.verdict !== judged) return false;
      if (wanted && outcome(clip) !== wanted) return false;
      if (!limited || (isNaN(low) && isNaN(high))) return true;
      const value = measure(clip, name);
      return value !== null && !(value < low) && !(value > high);
    };
    let n = 0;
    for (const card of cards) {
      card.element.hidden = !matches(card);
      if (!card.element.hidden) n++;
      else if (playing === card) unload(card);
    }
    $("#count").textContent =
      n === cards.length ? `all ${n} clips` : `${n} of ${cards.length} clips`;
  };

  const arrange = () => {
    const value = SORTS[$("#sort").value][1];
    const sign = $("#order").getAttribute("aria-pressed") === "true" ? -1 : 1;
    const keyed = cards.map((card) => [value(card.clip, card.place), card]);
    keyed.sort(([a, x], [b, y]) => {
      // Unknown values come last in either order.
      if (a === null || b === null) {
        return (a === null) - (b === null) || x.place - y.place;
      }
      return sign * compare(a, b) || x.place - y.place;
    });
    if (playing) unload(playing);
    $("#clips").append(...keyed.map(([, card]) => card.element));
  };

  // ------------------------------------------------------------- controls

  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen
      ? chosen === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const markTheme = () => {
    $("#theme").textContent = isDark() ? "Light mode" : "Dark mode";
  };
  $("#theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    markTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener(
    "change",
    markTheme
  );
  markTheme();

  let waiting = false;
  const redraw = () => {
    $("output[for=opacity]").textContent = `${$("#opacity").value} %`;
    $("output[for=threshold]").textContent = (
      $("#threshold").value / 100
    ).toFixed(2);
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      cards.forEach(draw);
    });
  };
  $("#opacity").addEventListener("input", redraw);
  $("#threshold").addEventListener("input", redraw);

  $("#sort").addEventListener("change", arrange);
  for (const id of ["#decision", "#verdict", "#outcome", "#metric"]) {
    $(id).addEventListener("change", update);
  }
  for (const id of ["#low", "#high"]) $(id).addEventListener("input", update);
  $("#filters").addEventListener("submit", (event) => event.preventDefault());
  $("#order").addEventListener("click", () => {
    const falls = $("#order").getAttribute("aria-pressed") !== "true";
    $("#order").setAttribute("aria-pressed", falls);
    $("#order").textContent = falls ? "Descending" : "Ascending";
    arrange();
  });

  const go = (step) => {
    const list = shown();
    const place = list.indexOf(current);
    const next = place < 0 ? list[0] : list[place + step];
    if (!next) return false;
    current = next;
    next.element.focus({ preventScroll: true });
    next.element.scrollIntoView({ block: "start" });
    return true;
  };
  const act = (key) => {
    if (key === "arrowdown" || key === "j") return go(1);
    if (key === "arrowup" || key === "k") return go(-1);
    const list = shown();
    const card = list.includes(current) ? current : list[0];
    if (!card) return false;
    current = card;
    if (key === " ") toggle(card);
    else if ("123".includes(key)) choose(card, Number(key) - 1);
    else if (key === "m" && card.clip.unrefined) wear(card, 1 - card.worn);
    else return false;
    return true;
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { tagName, type } = event.target;
    // Controls keep the keys that they use themselves.
    if (tagName === "SELECT" || type === "number") return;
    if (type === "range" && event.key.startsWith("Arrow")) return;
    if ((type === "button" || tagName === "SUMMARY") && event.key === " ") return;
    if (act(event.key.toLowerCase())) event.preventDefault();
  });

  // ----------------------------------------------------------------- start

  const hasPairs = index.clips.some((clip) => clip.unrefined);
  all(".pairs").forEach((part) => (part.hidden = !hasPairs));
  $("h1").textContent = `Explanations: ${index.title}`;
  document.title = `Explanations: ${index.title}`;
  const counts = { right: 0, wrong: 0, unknown: 0 };
  for (const clip of index.clips) counts[outcome(clip)]++;
  $("#summary").textContent = [
    `${cards.length} ${cards.length === 1 ? "clip" : "clips"}`,
    counts.right + counts.wrong && `${counts.right} right`,
    counts.wrong && `${counts.wrong} wrong`,
    counts.unknown && `${counts.unknown} without label`,
  ]
    .filter(Boolean)
    .join(" · ");
  const judged = index.clips.map((clip) => clip.verdict);
  const count = (name) => judged.filter((other) => other === name).length;
  const given = ranks.filter((name) => judged.includes(name));
  const shaky = index.clips.filter((clip) => clip.stable === false).length;
  $("#verdicts").textContent = [
    ...given.map((name) => `${count(name)} ${name}`),
    shaky && `${shaky} not stable`,
  ]
    .filter(Boolean)
    .join(" · ");
  $("#made").textContent = [
    ...index.made.map((made) => `by ${made}`),
    index.dates.join(" to "),
  ]
    .filter(Boolean)
    .join(" · ");
  const leftOut = index.left_out.length;
  $("#left-out").hidden = !leftOut;
  $("#left-out summary").textContent =
    `${leftOut} ${leftOut === 1 ? "clip is" : "clips are"} left out`;
  for (const reason of index.left_out) {
    $("#left-out ul").append(element("li", reason));
  }
  given.forEach((name) => option($("#verdict"), name, name));
  for (const [name, meaning] of MEANINGS) {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", meaning));
    $("#meanings").append(pair);
  }
  const names = index.clips.map((clip) => clip.decision);
  [...new Set(names)]
    .sort(compare)
    .forEach((name) => option($("#decision"), names.indexOf(name), name));
  SORTS.forEach(([name], i) => option($("#sort"), i, name));
  index.metrics.forEach(([name], i) => option($("#metric"), i, name));
  arrange();
  update();
  redraw();
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const card = cardOf.get(target);
        if (isIntersecting) show(card);
        else release(card);
      }
    },
    { rootMargin: "800px 0px" }
  );
  cards.forEach((card) => watcher.observe(card.element));
})();
