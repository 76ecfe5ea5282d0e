// Names of classes and files enter the page as text only, never as markup.
"use strict";
(() => {
  const { $, all, data, element, number, sort, term } = dom;
  const index = data("index");
  const SOUNDS = ["original", "explanation", "residual"];
  const ARROWS = { 1: " ↑", 0: "", "-1": " ↓" };
  const MEANINGS = new Map(index.verdicts);
  // What the tooltips of the headings say.
  const COLUMNS = {
    Before: "The probability that the classifier gives for the whole sound.",
    Inside: "The probability for the kept part alone; a good explanation keeps it.",
    Outside: "The probability for the rest alone; a good explanation loses it.",
  };

  const probability = (value) => (value === null ? "–" : value.toFixed(3));
  const measure = (clip, name) =>
    Object.hasOwn(clip.metrics, name) ? clip.metrics[name] : null;
  const outcome = (clip) =>
    clip.right === null ? "unknown" : clip.right ? "right" : "wrong";
  const STABLE = { null: "", true: ", stable", false: ", not stable" };
  const say = (sentence) =>
    `${sentence[0].toUpperCase()}${sentence.slice(1)}.`;
  const isGood = (clip) => clip.verdict === "faithful" && clip.stable !== false;

  // ------------------------------------------------------------- pictures

  const draw = (card) => {
    if (card.level) picture.draw(card.canvas, card.level, card.mask);
  };

  // The pictures of a card, level and mask, once they are loaded.
  const prepare = async (card) => {
    if (!card.images) {
      const { level, mask } = data(card.key);
      card.images = [level, mask].map(picture.load);
    }
    await Promise.all(card.images.map(picture.loaded));
  };
  const paint = (card) => {
    if (card.level) return;
    if (!card.images?.every((image) => image.complete)) return;
    const { width, height } = card.images[0];
    Object.assign(card.canvas, { width, height });
    [card.level, card.mask] = card.images.map(picture.values);
    draw(card);
  };

  // Only pictures near the screen are kept: 200 would fill the memory.
  const show = async (card) => {
    card.near = true;
    if (card.level) return;
    const { key } = card;
    fillFiles(card);
    if ($(".windows", card.element).open) fillWindows(card);
    await prepare(card);
    // By now it may have left the screen, or show its other mask.
    if (card.near && card.key === key) paint(card);
  };
  const release = (card) => {
    card.near = false;
    card.level = card.mask = null;
    card.canvas.width = card.canvas.height = 0;
    for (const link of card.files) link.removeAttribute("href");
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

  const loadSounds = (card) => {
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
    loadSounds(card);
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

  // Round numbers from 0 to the end of an axis, at most about six.
  const ticks = (end) => {
    const rough = end / 6;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((x) => x * power >= rough) * power;
    return Array.from(
      { length: Math.floor(end / step + 1e-6) + 1 },
      (_, i) => Number((i * step).toPrecision(6))
    );
  };
  const fillAxis = (axis, end) => {
    for (const tick of ticks(end)) {
      const mark = element("span", tick, "tick");
      mark.style.setProperty("--place", tick / end);
      axis.append(mark);
    }
  };

  // Names of files that no system takes for something else.
  const fileName = (card, sound, source) => {
    const ending = source.startsWith("data:")
      ? { "audio/mpeg": "mp3", "audio/wav": "wav" }[source.slice(5, source.indexOf(";"))]
      : source.split(".").pop();
    const clip = card.clip.id
      .replace(/[^\p{L}\p{N}._-]+/gu, "_")
      .replace(/^[._]+/, "")
      .slice(0, 80);
    const mask = card.worn ? "" : "-decoder";
    return `${clip || "clip"}-${SOUNDS[sound]}${mask}.${ending}`;
  };
  const fillFiles = (card) => {
    data(card.key).sounds.forEach((source, sound) => {
      const link = card.files[sound];
      link.href = source;
      link.download = fileName(card, sound, source);
      // A page from disk may not save a file beside it, but shows it.
      if (!source.startsWith("data:")) link.target = "_blank";
    });
  };

  const describe = (clip) => {
    const head =
      `Spectrogram of ${clip.id}, ${clip.seconds.toFixed(1)} seconds, ` +
      `0 to ${number(clip.kilohertz)} kHz, under the mask for ${clip.explained}. `;
    if (!clip.spread) return head + "The mask keeps nothing that sounds.";
    const [t0, t1, f0, f1] = clip.spread.map((x) => x.toFixed(1));
    return (
      head +
      `The mask keeps ${(100 * clip.area).toFixed(0)} %. Most of what is heard is ` +
      `from ${t0} to ${t1} s and from ${f0} to ${f1} kHz.`
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
      button.setAttribute("aria-label", `Go to ${button.textContent}`);
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
      const tip = Object.hasOwn(index.meanings, name) && index.meanings[name];
      const title = element("dt");
      title.append(term(name + ARROWS[direction], tip));
      pair.append(title, element("dd", number(clip.metrics[name])));
      list.append(pair);
    }
    list.hidden = !list.children.length;
  };

  // Everything that depends on the mask, except picture and sounds.
  const fillCard = (card) => {
    const { element: article, view } = card;
    card.canvas.setAttribute("aria-label", describe(view));
    const badge = $(".verdict", article);
    const tips = [
      MEANINGS.get(view.verdict),
      ...Object.entries(view.agreement).map(
        ([name, value]) => `agreement, ${name}: ${number(value)}`
      ),
    ];
    badge.replaceChildren(
      term(view.verdict + STABLE[view.stable], say(tips.join("; ")))
    );
    badge.classList.toggle("good", isGood(view));
    fillTable($(".facts tbody", article), view);
    fillMetrics($(".metrics", article), view);
    if (card.near && $(".windows", article).open) fillWindows(card);
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
    card.level = card.mask = card.images = null;
    if (card.near) show(card);
    if (goesOn) start(card);
  };

  // What is decided in how many windows of a long clip, the most first.
  const countWindows = ({ windows }) => {
    const counts = new Map();
    for (const { decision } of windows) {
      counts.set(decision, (counts.get(decision) ?? 0) + 1);
    }
    return [...counts]
      .sort(([, a], [, b]) => b - a)
      .map(([name, count]) => `${name} in ${count}`)
      .join(", ");
  };

  // The address is in the address bar too, where nothing may be copied.
  const copyLink = async (link) => {
    try {
      const { href } = link;
      await navigator.clipboard.writeText(href);
      link.textContent = "Link copied";
      setTimeout(() => (link.textContent = "Link to this clip"), 2000);
    } catch {}
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
      files: all(".files a:not(.link)", article),
      images: null, // the pictures, as they are stored
      sound: 0,
      near: false,
    };
    const title = part("h2");
    title.textContent = clip.headline ? clip.decision : "No one class";
    title.id = `title-${i}`;
    part(".origin").id = `origin-${i}`;
    article.setAttribute("aria-labelledby", `${title.id} origin-${i}`);
    const found = outcome(clip);
    part(".outcome").classList.add(found);
    part(".outcome").textContent =
      (clip.headline ? "" : `${countWindows(clip)}; their mean says ${clip.decision}: `) +
      {
        right: "right",
        wrong: `wrong, the label is ${clip.label}`,
        unknown: clip.label === null ? "no label" : `label ${clip.label}, no class of the model`,
      }[found];
    // Names may be in scripts that run from right to left.
    const origin = [element("bdi", clip.id)];
    if (clip.file !== null && clip.file !== clip.id) {
      origin.push(element("bdi", clip.file));
    }
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
    if (clip.second_look) origin.push("mask after a second look");
    const steps = clip.refine_steps;
    const refined = `refined, ${steps} ${steps === 1 ? "step" : "steps"}`;
    if (steps && !clip.unrefined) origin.push(`mask ${refined}`);
    part(".origin").append(
      ...origin.flatMap((item, i) => (i ? [" · ", item] : [item]))
    );
    const address = `clip/${clip.anchor}`;
    article.id = address;
    part(".link").href = `#${address}`;
    part(".link").addEventListener("click", (event) => copyLink(event.target));
    card.files.forEach((link, i) => (link.textContent = SOUNDS[i]));
    part(".masks").hidden = !clip.unrefined;
    card.switches[1].textContent = refined[0].toUpperCase() + refined.slice(1);
    fillAxis(part(".hertz"), clip.kilohertz);
    fillAxis(part(".seconds"), clip.seconds);
    all("thead th", part(".facts")).forEach((head) => {
      head.replaceChildren(term(head.textContent, COLUMNS[head.textContent]));
    });
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

  // A long clip has those of its windows.
  const decisionsOf = (clip) => [
    clip.decision,
    ...(clip.headline ? [] : clip.windows.map((window) => window.decision)),
  ];
  const compare = (a, b) =>
    typeof a === "string" ? a.localeCompare(b) : a - b;
  const decisions = [...new Set(index.clips.flatMap(decisionsOf))].sort(compare);
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
      if (decision && !decisionsOf(clip).includes(decisions[decision])) {
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
      n === cards.length && n > 1 ? `all ${n} clips`
        : `${n} of ${cards.length} ${cards.length === 1 ? "clip" : "clips"}`;
  };

  const arrange = () => {
    const value = SORTS[$("#sort").value][1];
    const sign = $("#order").getAttribute("aria-pressed") === "true" ? -1 : 1;
    const keyed = cards.map((card) => [value(card.clip, card.place), card]);
    sort(keyed, sign, compare);
    if (playing) unload(playing);
    $("#clips").append(...keyed.map(([, card]) => card.element));
  };

  // ------------------------------------------------------------- controls

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
      picture.mix($("#opacity").value / 100, $("#threshold").value / 100);
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

  const reach = (card) => {
    current = card;
    card.element.focus({ preventScroll: true });
    card.element.scrollIntoView({ block: "start" });
  };
  const go = (step) => {
    const list = shown();
    const place = list.indexOf(current);
    const next = place < 0 ? list[0] : list[place + step];
    if (next) reach(next);
    return Boolean(next);
  };
  // The clip that the address names, even where a filter hides it.
  const openLinked = () => {
    const id = location.hash.slice(1);
    const card = cards.find(({ element }) => id && element.id === id);
    if (!card) return;
    if (card.element.hidden) {
      for (const name of ["decision", "verdict", "outcome", "metric"]) {
        $(`#${name}`).value = "";
      }
      update();
    }
    reach(card);
  };
  addEventListener("hashchange", openLinked);
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
  const unlabelled = index.clips.filter((clip) => clip.label === null).length;
  const others = counts.unknown - unlabelled;
  $("#summary").textContent = [
    `${cards.length} ${cards.length === 1 ? "clip" : "clips"}`,
    counts.right + counts.wrong && `${counts.right} right`,
    counts.wrong && `${counts.wrong} wrong`,
    unlabelled && `${unlabelled} without label`,
    others && `${others} with a label that is no class`,
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
  if (index.asked) $("#notes").append(element("p", `Clips: ${index.asked}.`));
  for (const note of index.notes) $("#notes").append(element("p", say(note)));
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
    pair.append(element("dt", name), element("dd", say(meaning)));
    $("#meanings").append(pair);
  }
  decisions.forEach((name, i) => option($("#decision"), i, name));
  SORTS.forEach(([name], i) => option($("#sort"), i, name));
  index.metrics.forEach(([name], i) => option($("#metric"), i, name));
  arrange();
  update();
  redraw();
  let printing = false;
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const card = cardOf.get(target);
        if (isIntersecting) show(card);
        else if (printing) card.near = false;
        else release(card);
      }
    },
    { rootMargin: "1600px 0px" }
  );
  cards.forEach((card) => watcher.observe(card.element));
  openLinked();

  // Paper shows all pictures. A printer does not wait for them, so all are
  // loaded beforehand, a few at a time, those on the screen first.
  const beforePrint = () => {
    printing = true;
    for (const card of shown()) {
      if (card.view.windows.length) fillWindows(card);
      paint(card);
    }
  };
  const afterPrint = () => {
    printing = false;
    cards.filter((card) => !card.near).forEach(release);
  };
  addEventListener("beforeprint", beforePrint);
  addEventListener("afterprint", afterPrint);
  matchMedia("print").addEventListener("change", ({ matches }) =>
    matches ? beforePrint() : afterPrint()
  );
  const queue = cards[Symbol.iterator]();
  const prepareAll = async () => {
    for (const card of queue) await prepare(card);
  };
  for (let i = 0; i < 4; i++) prepareAll();
})();
