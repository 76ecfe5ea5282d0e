// Names of classes, files and columns enter the page as text only.
"use strict";
(() => {
  const { $, all, data, element, number, sort, term } = dom;
  const index = data("index");
  const { alarms, classes, confusions, corpus, examples } = index;
  const MEANINGS = new Map(index.verdicts);
  const classOf = new Map(classes.map((found) => [found.name, found]));
  const SOUNDS = ["whole", "kept", "rest"];
  const MOST_SHOWN = 20; // alarms and pairs, until more are asked for
  const LONGEST = 160; // characters of a name

  const short = (text, most = LONGEST) =>
    text.length > most ? `${text.slice(0, most)}…` : text;
  // A name of somebody else, which may run from right to left.
  const named = (text, tag = "bdi") => {
    const made = element(tag, short(text));
    if (text.length > LONGEST) made.title = text.slice(0, 2000);
    return made;
  };
  // A sentence with such names in it.
  const sentence = (text, name) => {
    const made = element("p", short(text, 2000), name);
    made.dir = "ltr";
    return made;
  };
  const count = (n, one, many = `${one}s`) =>
    `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  const percent = (value) => {
    if (value === null) return "–";
    const digits = value && Math.abs(value) < 0.1 ? 1 : 0;
    return `${(100 * value).toFixed(digits)} %`;
  };
  const chance = (value) =>
    value >= 0.001 ? value.toPrecision(2)
      : value > 0 ? value.toExponential(1).replace("e-", " · 10⁻").replace(/⁻(\d+)/, (_, d) =>
        `⁻${[...d].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`)
        : "0";
  const between = ([, low, high], show) =>
    low === null || high === null ? "" : ` (${show(low)} to ${show(high)})`;
  const say = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
  const address = (...parts) => parts.map(encodeURIComponent).join("/");

  // Links keep their text for those who cannot copy.
  const linkTo = (id, text = "Link") => {
    const link = element("a", text, "link");
    link.href = `#${id}`;
    link.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(link.href);
        link.textContent = "Link copied";
        setTimeout(() => (link.textContent = text), 2000);
      } catch {}
    });
    return link;
  };

  // ------------------------------------------------------------- examples

  picture.mix();
  let playing = null; // the example whose sounds are loaded

  const move = (card, seconds) => {
    card.seconds = Math.min(Math.max(seconds, 0), card.facts.seconds);
    const share = card.seconds / card.facts.seconds;
    card.playhead.style.left = `calc(${share} * (100% - 2px))`;
  };
  const mark = (card) => {
    card.buttons.forEach((button, i) => {
      const plays = card.audios?.[i] && !card.audios[i].paused;
      button.setAttribute("aria-pressed", Boolean(plays));
      button.classList.toggle("plays", Boolean(plays));
    });
  };
  const follow = (card) => {
    cancelAnimationFrame(card.frame);
    const audio = card.audios?.[card.sound];
    if (!audio || audio.paused) return;
    move(card, audio.currentTime);
    card.frame = requestAnimationFrame(() => follow(card));
  };
  const unload = (card) => {
    for (const audio of card.audios ?? []) {
      audio.pause();
      audio.removeAttribute("src");
      audio.remove();
    }
    card.audios = null;
    mark(card);
  };
  const loadSounds = (card) => {
    if (card.audios) return;
    if (playing) unload(playing);
    playing = card;
    card.problem.textContent = "";
    card.audios = data(card.facts.block).sounds.map((source, i) => {
      const audio = element("audio");
      audio.dataset.sound = SOUNDS[i];
      audio.preload = "auto";
      audio.addEventListener("play", () => {
        mark(card);
        follow(card);
      });
      audio.addEventListener("pause", () => mark(card));
      audio.addEventListener("ended", () => move(card, 0));
      audio.addEventListener("error", () => {
        if (card.audios?.includes(audio)) {
          card.problem.textContent = "This sound cannot be played here.";
        }
      });
      audio.src = source;
      card.element.append(audio);
      return audio;
    });
  };
  const play = (card, sound) => {
    loadSounds(card);
    const before = card.audios[card.sound];
    if (!before.paused) move(card, before.currentTime);
    before.pause();
    card.sound = sound;
    const audio = card.audios[sound];
    audio.currentTime = card.seconds < card.facts.seconds ? card.seconds : 0;
    // The error event reports a failure; otherwise the user has paused.
    audio.play().catch(() => {});
  };
  const toggle = (card, sound) => {
    const audio = card.audios?.[sound];
    if (audio && !audio.paused) audio.pause();
    else play(card, sound);
  };

  // Only pictures near the screen are kept.
  const cardOf = new WeakMap();
  const show = async (card) => {
    card.near = true;
    const { level, mask } = data(card.facts.block);
    const images = [level, mask].map(picture.load);
    await Promise.all(images.map(picture.loaded));
    if (!card.near) return;
    const { width, height } = images[0];
    Object.assign(card.canvas, { width, height });
    picture.draw(card.canvas, ...images.map(picture.values));
  };
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const card = cardOf.get(target);
        if (isIntersecting) show(card);
        else {
          card.near = false;
          card.canvas.width = card.canvas.height = 0;
        }
      }
    },
    { rootMargin: "800px 0px" }
  );

  const describe = (facts) => {
    const head = `Spectrogram of ${short(facts.id)}, ${facts.seconds.toFixed(1)} seconds. `;
    if (!facts.spread) return `${head}Nothing that sounds is kept.`;
    const [t0, t1, f0, f1] = facts.spread.map((x) => x.toFixed(1));
    return (
      `${head}${(100 * facts.area).toFixed(0)} % are kept. Most of what is heard is ` +
      `from ${t0} to ${t1} s and from ${f0} to ${f1} kHz.`
    );
  };
  const caption = (facts) => {
    const decided = element("p", undefined, "decided");
    decided.append(named(facts.decision, "b"));
    // A label that is no class of the model: neither right nor wrong.
    const unknown = !corpus.labels || facts.right === null;
    if (facts.label !== null && unknown) {
      decided.append(" label ", named(facts.label));
    } else if (facts.label !== null) {
      const { right } = facts;
      decided.append(element("span", right ? " right" : " wrong, it is ", right ? "right" : "wrong"));
      if (!right) decided.append(named(facts.label));
    }
    const origin = element("p", undefined, "origin");
    origin.append(named(facts.id));
    const parts = [decided, origin];
    if (facts.explained !== undefined && facts.explained !== facts.decision) {
      const asked = element("p", "why ", "origin");
      asked.append(named(facts.explained));
      parts.push(asked);
    }
    return parts;
  };

  // An alarm marks its band or its time in the picture.
  const markPlace = (part, facts, { band_hz, time }) => {
    const top = 1000 * facts.kilohertz;
    const [low, high] = (band_hz ?? [0, top]).map((x) => Math.min(x / top, 1));
    const [from, to] = time ?? [0, 1];
    part.style.bottom = `${100 * low}%`;
    part.style.height = `${100 * (high - low)}%`;
    part.style.left = `${100 * from}%`;
    part.style.width = `${100 * (to - from)}%`;
    part.hidden = false;
  };

  const absent = (name, facts) => {
    const made = element("figure", undefined, "example absent");
    const head = element("figcaption");
    head.append(...caption(facts));
    const reason =
      index.left_out[name] || "There are more examples than fit into one page.";
    const place = element("p", undefined, "note");
    place.append(`Not in this page. ${short(reason, 300)} It lies in `, named(`examples/${name}`));
    made.append(head, place);
    return made;
  };
  const makeExample = (name, alarm) => {
    const facts = examples[name];
    if (!facts.block) return absent(name, facts);
    const figure = $("#example").content.firstElementChild.cloneNode(true);
    const card = {
      facts,
      element: figure,
      canvas: $("canvas", figure),
      playhead: $(".playhead", figure),
      buttons: all("button", figure),
      problem: $(".problem", figure),
      sound: 0,
      seconds: 0,
    };
    const head = $("figcaption", figure);
    head.append(...caption(facts));
    const verdict = element("p", undefined, "verdict");
    verdict.classList.toggle("good", facts.verdict === "faithful");
    verdict.append(term(facts.verdict, say(MEANINGS.get(facts.verdict))));
    head.append(verdict);
    card.canvas.setAttribute("aria-label", describe(facts));
    $(".segments", figure).setAttribute("aria-label", `Play ${short(facts.id)}`);
    card.buttons.forEach((button, i) =>
      button.addEventListener("click", () => toggle(card, i))
    );
    if (alarm && (alarm.band_hz || alarm.time)) {
      markPlace($(".mark", figure), facts, alarm);
    }
    $(".picture", figure).addEventListener("pointerdown", (event) => {
      const box = card.canvas.getBoundingClientRect();
      const seconds = ((event.clientX - box.left) / box.width) * facts.seconds;
      move(card, seconds);
      if (card.audios) card.audios[card.sound].currentTime = card.seconds;
    });
    mark(card);
    move(card, 0);
    cardOf.set(figure, card);
    watcher.observe(figure);
    return figure;
  };
  const makeExamples = (names, alarm) => {
    const made = element("div", undefined, "examples");
    made.append(...names.map((name) => makeExample(name, alarm)));
    return made;
  };

  // --------------------------------------------------------------- alarms

  const nyquist = Math.max(0, ...classes.map(({ bands }) => bands.edges_hz.at(-1)));
  // Where an alarm is, over what its class keeps there; or on an empty axis.
  const placeChart = (alarm) => {
    const found = classOf.get(alarm.class);
    const title = `${alarm.where}, over the kept energy of ${short(alarm.class)}`;
    const empty = { mean: [null], low: [null], high: [null] };
    if (alarm.band_hz || (found && !alarm.time && alarm.column === null)) {
      const edges_hz = [0, Math.max(nyquist, alarm.band_hz?.[1] ?? 1)];
      return charts.overHertz(found?.bands ?? { edges_hz, ...empty }, alarm.band_hz, title);
    }
    if (alarm.time) {
      const times = found?.times ?? { edges: [0, 1], ...empty };
      const [from, to] = [times.edges[0], times.edges.at(-1)];
      const place = alarm.time.map((share) => from + (to - from) * share);
      return charts.overTime(times, place, title);
    }
    return null;
  };

  const idOfAlarm = ({ kind, class: name, column, where }) =>
    address("alarm", kind, name, column ?? "", where);
  const idOfPair = ({ label, decision }) => address("wrong", label, decision);
  const makeAlarm = (alarm, rank) => {
    const article = element("article", undefined, "finding");
    article.id = idOfAlarm(alarm);
    article.tabIndex = -1;
    const head = element("header");
    const title = element("h3");
    title.append(`${rank + 1}. `, named(alarm.class), ": ", named(alarm.where));
    head.append(title, element("p", short(alarm.kind), "kind"), linkTo(article.id));
    const facts = element("div", undefined, "evidence");
    const effect = element("div");
    const [mean] = alarm.effect;
    // An effect on a probability is a share.
    const unit = alarm.effect.every((x) => Math.abs(x) <= 1) ? percent : number;
    const shown = `${unit(mean)}${between(alarm.effect, unit)}`;
    effect.append(
      element("p", short(alarm.effect_of), "what"),
      charts.interval(alarm.effect, `${short(alarm.effect_of)}: ${shown}`, unit),
      element("p", shown, "value"),
      element("p", `p = ${chance(alarm.p)} · q = ${chance(alarm.q)} · ${count(alarm.n, "clip")}`, "note")
    );
    facts.append(effect);
    const chart = placeChart(alarm);
    if (chart) {
      const place = element("div");
      const over = alarm.time ? "time" : "frequency";
      place.append(element("p", `kept energy of ${short(alarm.class)} over ${over}`, "what"), chart);
      facts.append(place);
    } else if (alarm.column !== null) {
      const column = element("p", "Column of the table: ", "what");
      column.append(named(alarm.column, "b"));
      facts.append(column);
    }
    article.append(head, sentence(alarm.text, "text"), facts, makeExamples(alarm.examples, alarm));
    return article;
  };

  // ------------------------------------------------------ wrong decisions

  const makeGroup = (group) => {
    const made = element("div", undefined, "group");
    const head = element("h4");
    head.append(named(group.name));
    const [share] = group.share;
    head.append(
      element("span", ` ${percent(share)}${between(group.share, percent)}, ${count(group.n, "clip")}`, "note")
    );
    made.append(head);
    if (group.text) made.append(sentence(group.text, "text"));
    made.append(makeExamples(group.examples));
    return made;
  };
  const makePair = (pair) => {
    const article = element("article", undefined, "finding");
    article.id = idOfPair(pair);
    article.tabIndex = -1;
    const head = element("header");
    const title = element("h3");
    title.append(named(pair.label), " taken for ", named(pair.decision));
    head.append(title, element("p", count(pair.n, "clip"), "kind"), linkTo(article.id));
    article.append(head, sentence(pair.text, "text"));
    // The sentence says already what one group has in common.
    if (pair.groups.length === 1) article.append(makeExamples(pair.groups[0].examples));
    else article.append(...pair.groups.map(makeGroup));
    return article;
  };

  // A list whose items are made when they are shown.
  const makeList = (id, items, make, idOf, words) => {
    const list = $(`#${id} .list`);
    const more = $(`#${id} .more`);
    let shown = [];
    let n = MOST_SHOWN;
    const made = new Map();
    const update = (matches) => {
      if (matches) {
        shown = items.filter(matches);
        n = MOST_SHOWN;
      }
      list.replaceChildren(
        ...shown.slice(0, n).map((item) => {
          if (!made.has(item)) made.set(item, make(item, items.indexOf(item)));
          return made.get(item);
        })
      );
      more.hidden = shown.length <= n;
      more.textContent = `Show all ${count(shown.length, ...words)}`;
    };
    more.addEventListener("click", () => {
      const first = n;
      n = Infinity;
      update();
      list.children[first].focus();
    });
    // The item of an address, made if need be.
    const reveal = (id) => {
      const found = items.find((item) => idOf(item) === id);
      if (!found) return null;
      n = Infinity;
      update(shown.includes(found) ? undefined : () => true);
      n = Infinity;
      update();
      return made.get(found);
    };
    return { update, reveal, size: () => shown.length };
  };

  // -------------------------------------------------------------- classes

  const alarmsOf = new Map();
  for (const alarm of alarms) {
    alarmsOf.set(alarm.class, (alarmsOf.get(alarm.class) ?? 0) + 1);
  }
  const faithful = (found) =>
    Object.hasOwn(found.verdicts, "faithful") ? found.verdicts.faithful[0] : null;
  const isLabelled = classes.some((found) => found.n_wrong !== null);
  const COLUMNS = [
    ["Class", (found) => found.name, null],
    ["Clips", (found) => found.n, "Clips that are decided so."],
    ...(isLabelled
      ? [["Wrong", (found) => found.n_wrong, "Clips whose decision and label differ."]]
      : []),
    ["Alarms", (found) => alarmsOf.get(found.name) ?? 0, "Alarms of this class."],
    ["Faithful", faithful, say(MEANINGS.get("faithful"))],
    ["Area", (found) => found.area[0], index.meanings.area],
  ];

  const rowsOf = (title, pairs, make) => {
    const made = element("div");
    made.append(element("h4", title));
    const list = element("dl", undefined, "rows");
    for (const [name, values] of pairs) {
      const pair = element("div");
      const head = element("dt");
      head.append(...make(name));
      pair.append(head, element("dd", values));
      list.append(pair);
    }
    made.append(list);
    return made;
  };
  const ARROWS = { 1: " ↑", 0: "", "-1": " ↓" };
  const metricName = (name) => {
    const known = Object.hasOwn(index.directions, name);
    const arrow = known ? ARROWS[index.directions[name]] : "";
    const tip = Object.hasOwn(index.meanings, name) && index.meanings[name];
    return [term(short(name) + arrow, tip)];
  };
  const chartOf = (title, chart) => {
    const made = element("div", undefined, "chart");
    made.append(element("h4", title), chart);
    return made;
  };
  const examplesOf = (title, names, text) => {
    const made = element("div", undefined, "group");
    made.append(element("h4", title), element("p", text, "note"), makeExamples(names));
    return made;
  };
  const fillClass = (panel, found) => {
    const figures = element("div", undefined, "figures");
    figures.append(
      chartOf("Kept energy over frequency", charts.overHertz(found.bands, null, `Kept energy of ${short(found.name)} over frequency`)),
      chartOf("Kept energy over time", charts.overTime(found.times, null, `Kept energy of ${short(found.name)} over time`)),
      rowsOf(
        "Verdicts",
        Object.entries(found.verdicts).map(([name, share]) => [name, `${percent(share[0])}${between(share, percent)}`]),
        (name) => [term(short(name), MEANINGS.has(name) && say(MEANINGS.get(name)))]
      ),
      rowsOf(
        "Fidelity",
        [
          ["area", found.area],
          ...Object.entries(found.fidelity),
        ].map(([name, values]) => [name, `${number(values[0])}${between(values, number)}`]),
        metricName
      )
    );
    panel.append(figures);
    const { labelled } = found;
    if (labelled) {
      const said = `Of ${count(labelled.n, "clip")} with this label, ` +
        `${labelled.n_missed} ${labelled.n_missed === 1 ? "is" : "are"} decided otherwise.`;
      panel.append(element("p", said, "missed"));
    }
    const raised = alarms.filter((alarm) => alarm.class === found.name);
    if (raised.length) {
      const list = element("p", "Alarms:", "alarms");
      for (const alarm of raised) {
        const link = element("a", short(alarm.where));
        link.href = `#${idOfAlarm(alarm)}`;
        list.append(link);
      }
      panel.append(list);
    }
    // One group is the whole class, whose prototypes it begins with.
    const [only] = found.groups.length === 1 ? found.groups : [];
    const typical = [...new Set([...found.prototypes, ...(only?.examples ?? [])])];
    if (typical.length) {
      const text = "Explanations that are most like the others of the class";
      panel.append(examplesOf("Prototypes", typical, only?.text ? `${text}: ${short(only.text, 500)}.` : `${text}.`));
    }
    if (found.outliers.length) {
      panel.append(examplesOf("Outliers", found.outliers, "Explanations that are least like the others."));
    }
    if (!only) panel.append(...found.groups.map(makeGroup));
  };

  const body = $("#classes tbody");
  const makeRow = (found, place) => {
    const row = element("tr", undefined, "class");
    const detail = element("tr", undefined, "detail");
    detail.hidden = true;
    row.id = address("class", found.name);
    row.tabIndex = -1;
    const head = element("th");
    head.scope = "row";
    const button = element("button", undefined, "open");
    button.type = "button";
    button.append(named(found.name));
    button.setAttribute("aria-expanded", "false");
    head.append(button);
    row.append(head);
    for (const [name, value] of COLUMNS.slice(1)) {
      const known = value(found);
      const cell = element("td", name === "Faithful" ? percent(known) : number(known), name.toLowerCase());
      if (name === "Faithful" && known !== null) {
        const bar = element("span", undefined, "bar");
        const fill = element("i");
        fill.style.width = `${100 * Math.min(1, Math.max(0, known))}%`;
        bar.append(fill);
        cell.append(bar);
      }
      if (name === "Alarms" && known) cell.classList.add("has");
      row.append(cell);
    }
    // What a class opens to is made then: there may be hundreds of classes.
    const toggle = (open) => {
      detail.hidden = !open;
      button.setAttribute("aria-expanded", open);
      if (open && !detail.children.length) {
        const cell = element("td", undefined, "panel");
        cell.colSpan = COLUMNS.length;
        const inner = element("div");
        fillClass(inner, found);
        inner.append(linkTo(row.id, "Link to this class"));
        cell.append(inner);
        detail.append(cell);
      }
      if (!open) detail.replaceChildren();
      if (playing && !playing.element.isConnected) unload(playing);
    };
    button.addEventListener("click", () => toggle(detail.hidden));
    return { found, place, row, detail, toggle, button };
  };
  const rows = classes.map(makeRow);

  let sorted = [null, 1]; // column, and direction
  const compare = (a, b) =>
    typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  const arrange = () => {
    const [column, sign] = sorted;
    const keyed = rows.map((row) => [column === null ? row.place : COLUMNS[column][1](row.found), row]);
    sort(keyed, sign, compare);
    body.append(...keyed.flatMap(([, { row, detail }]) => [row, detail]));
    all("#classes thead th").forEach((head, i) => {
      const state = i === column ? (sign > 0 ? "ascending" : "descending") : "none";
      head.setAttribute("aria-sort", state);
    });
  };
  COLUMNS.forEach(([name, , tip], i) => {
    const head = element("th");
    head.scope = "col";
    head.className = name.toLowerCase();
    const button = element("button", name, "sort");
    button.type = "button";
    if (tip) button.dataset.tip = tip;
    button.addEventListener("click", () => {
      const [column, sign] = sorted;
      // Names go up at first, numbers down.
      sorted = [i, column === i ? -sign : i ? -1 : 1];
      arrange();
    });
    head.append(button);
    $("#classes thead tr").append(head);
  });

  // --------------------------------------------------------------- search

  const lists = [
    makeList("alarms", alarms, makeAlarm, idOfAlarm, ["alarm"]),
    makeList("wrong", confusions, makePair, idOfPair, ["pair"]),
  ];
  const search = $("#search");
  const fold = (text) => text.normalize("NFC").toLowerCase();
  const update = () => {
    const wanted = fold(search.value.trim());
    const has = (...names) => names.some((name) => fold(name).includes(wanted));
    lists[0].update((alarm) => has(alarm.class));
    lists[1].update((pair) => has(pair.label, pair.decision));
    let n = 0;
    for (const { found, row, detail, button } of rows) {
      row.hidden = !has(found.name);
      detail.hidden = row.hidden || button.getAttribute("aria-expanded") !== "true";
      if (!row.hidden) n++;
    }
    if (playing && (!playing.element.isConnected || !playing.element.offsetParent)) {
      unload(playing);
    }
    $("#count").textContent = wanted
      ? [
          `${n} of ${count(rows.length, "class", "classes")}`,
          count(lists[0].size(), "alarm"),
          confusions.length && count(lists[1].size(), "pair"),
        ].filter(Boolean).join(" · ")
      : "";
  };
  search.addEventListener("input", update);
  $("#view").addEventListener("submit", (event) => event.preventDefault());

  const reach = (target) => {
    target.focus({ preventScroll: true });
    target.scrollIntoView({ block: "start" });
  };
  // What the address names, even where a search hides it.
  const openLinked = () => {
    const id = location.hash.slice(1);
    const opened = rows.find(({ row }) => id && row.id === id);
    if (opened) {
      if (opened.row.hidden) {
        search.value = "";
        update();
      }
      opened.toggle(true);
      reach(opened.row);
      return;
    }
    for (const list of lists) {
      const found = list.reveal(id);
      if (found) reach(found);
    }
  };
  addEventListener("hashchange", openLinked);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { tagName } = event.target;
    if (tagName === "INPUT" || tagName === "SUMMARY") return;
    if (event.key === "/") search.focus();
    else if (event.key === " " && tagName !== "BUTTON" && playing) {
      toggle(playing, playing.sound);
    } else return;
    event.preventDefault();
  });

  // ---------------------------------------------------------------- start

  const wrong = classes.reduce((sum, { n_wrong }) => sum + (n_wrong ?? 0), 0);
  const title = `Audit: ${short(index.title)}`;
  $("h1").textContent = document.title = title;
  $("#summary").textContent = [
    count(corpus.n_clips, "clip"),
    count(classes.length, "class", "classes"),
    isLabelled ? `${wrong.toLocaleString("en")} decided wrongly`
      : corpus.unknown_labels.length ? "labels unknown to the model" : "without labels",
    corpus.n_failed && `${corpus.n_failed.toLocaleString("en")} could not be explained`,
  ].filter(Boolean).join(" · ");
  const tests = `among ${count(index.n_tests, "test")}`;
  const isTested = index.n_tests > 0 || alarms.length > 0;
  $("#answer").textContent = !isTested
    ? "Not tested for alarms"
    : alarms.length
      ? `${count(alarms.length, "alarm")} ${tests}`
      : `No alarm ${tests}`;
  $("#answer").classList.toggle("good", isTested && !alarms.length);
  $("#answer").classList.toggle("open", !isTested);
  $("#alarms .intro").textContent = !isTested
    ? "No test could be made: there were too few clips, or parts of the audit that tests need were left out."
    : alarms.length
    ? "What the decisions depend on and should not, the strongest first."
    : `No alarm ${tests}. This is what the tests can see, not a proof: what all classes share, or too few clips show, raises none.`;
  $("#wrong .intro").textContent = !isLabelled
    ? `${corpus.unknown_labels.length
        ? "No clip has a label that is a class of the model"
        : "The clips have no labels"}, so it is not known which decisions are wrong.`
    : confusions.length
      ? "For each pair of classes, what spoke for the wrong one."
      : "No decision differs from its label.";
  if (corpus.unknown_labels.length) {
    const intro = $("#wrong .intro");
    intro.append(" Labels unknown to the model, for instance: ");
    corpus.unknown_labels.forEach((label, i) => intro.append(i ? ", " : "", named(label)));
    intro.append(". The option --classes-map may say which classes they are.");
  }
  $("#classes .intro").textContent =
    "What each class is decided by. Open one to see and hear it.";
  $("#failed .intro").textContent = corpus.n_failed
    ? `${count(corpus.n_failed, "clip")} could not be explained` +
      (corpus.n_failed > index.failed.length
        ? `; the first ${index.failed.length} are listed here, all in tables/clips.csv.`
        : ".")
    : "Nothing: each clip was explained.";
  for (const { id, error } of index.failed) {
    const item = element("li");
    item.append(named(id, "b"), ": ", element("bdi", short(error, 500)));
    $("#failed ul").append(item);
  }
  for (const [name, meaning] of MEANINGS) {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", say(meaning)));
    $("#meanings").append(pair);
  }

  // Values of what made it, whatever lies in what.
  const facts = [];
  const flatten = (name, value) => {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      for (const [key, inner] of Object.entries(value)) {
        flatten(name ? `${name}, ${key}` : key, inner);
      }
    } else if (value !== null) {
      const text = Array.isArray(value) ? value.map((x) =>
        typeof x === "string" ? x : JSON.stringify(x)).join(", ") : String(value);
      facts.push([name, text]);
    }
  };
  flatten("", index.made);
  if (corpus.columns.length) flatten("columns of the table", corpus.columns);
  flatten("tests", index.n_tests);
  for (const [name, value] of facts) {
    const pair = element("div");
    const what = element("dt");
    what.append(named(name.replaceAll("_", " ")));
    const known = element("dd");
    known.append(element("bdi", short(value, 500)));
    pair.append(what, known);
    $("#how .origins").append(pair);
  }
  for (const note of index.notes) $("#how .notes").append(element("li", short(note, 1000)));
  const held = Object.values(examples).filter(({ block }) => block).length;
  const left = Object.entries(index.left_out);
  const broken = left.filter(([, reason]) => reason).length;
  $("#how .intro").textContent = [
    `The page holds ${count(held, "example")}, and needs no network.`,
    left.length > broken &&
      `${left.length - broken} more are in the folder examples: lmac report shows them, and lmac app pages through all.`,
    broken && `${count(broken, "example")} could not be read.`,
  ].filter(Boolean).join(" ");
  index.plots.forEach(({ file, text }, i) => {
    const link = element("a", `${short(text)} (${short(file.split(".").pop(), 20)})`);
    link.href = `./${file.split("/").map(encodeURIComponent).join("/")}`;
    if (!i) $("#how .files").append("Plots beside this page:");
    $("#how .files").append(link);
  });

  for (const [id, text] of [
    ["alarms", `Alarms (${alarms.length})`],
    ["wrong", `Wrong decisions (${confusions.length})`],
    ["classes", `Classes (${classes.length})`],
    ["failed", `What failed (${corpus.n_failed})`],
    ["how", "How it was made"],
  ]) {
    const link = element("a", text);
    link.href = `#${id}`;
    $("#contents").append(link);
  }
  arrange();
  update();
  openLinked();
})();
