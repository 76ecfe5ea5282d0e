// Names of classes and listeners enter the page as text only, never as markup.
"use strict";
(() => {
  const { $, all, data } = dom;
  const index = data("index");
  const QUESTIONS = ["fit", "quality"];
  const n = index.trials.length;

  // ---------------------------------------------------------------- order

  // Numbers in [0, 1) from xorshift, seeded with a text's FNV-1a hash.
  const numbers = (text) => {
    let state = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(text)) {
      state = Math.imul(state ^ byte, 0x01000193);
    }
    state ||= 1;
    const next = () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) / 2 ** 32;
    };
    // The first numbers of similar texts are similar, so skip some.
    for (let i = 0; i < 32; i++) next();
    return next;
  };
  const shuffled = (list, next) => {
    const copy = [...list];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = Math.floor(next() * (i + 1));
      [copy[i], copy[j]] = [copy[j], copy[i]];
    }
    return copy;
  };

  // ------------------------------------------------- what the browser keeps

  const OPEN = `listening test ${index.test}`; // key of the current listener
  const box = (listener) => `${OPEN}: ${listener}`;
  let keeps = true;
  // A browser may refuse to store anything, especially for a page from disk.
  const keep = (key, value) => {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, value);
    } catch {
      keeps = false;
    }
    $("#forgets").hidden = keeps;
  };
  const recall = (key) => {
    try {
      return localStorage.getItem(key);
    } catch {
      keeps = false;
      return null;
    }
  };

  let session = null; // of one listener

  const isRating = (value) =>
    Number.isInteger(value) && value >= 1 && value <= 100;

  // Each listener has a fixed order; stored ratings of an earlier visit count.
  const open = (listener) => {
    const next = numbers(`${index.test} ${listener}`);
    session = { listener, place: 0, started: new Date().toISOString() };
    session.trials = shuffled(index.trials, next).map((trial) => ({
      code: trial.trial,
      decision: trial.decision,
      plays: 0, // of the original
      ratings: shuffled(trial.codes, next).map((code) => ({
        code,
        fit: null,
        quality: null,
        plays: 0, // to the end
        began: null, // when it was first played
        seconds: null, // from then to the last answer
      })),
    }));
    let kept = null;
    try {
      kept = JSON.parse(recall(box(listener)));
    } catch {
      // Stored data that cannot be read is replaced.
    }
    for (const trial of session.trials) {
      const plays = kept?.originals?.[trial.code];
      if (Number.isInteger(plays) && plays > 0) trial.plays = plays;
      for (const rating of trial.ratings) {
        const found = kept?.ratings?.[rating.code];
        // What was not played is not rated either.
        if (!(Number.isInteger(found?.plays) && found.plays > 0)) continue;
        if (!Number.isFinite(found.began)) continue;
        rating.plays = found.plays;
        rating.began = found.began;
        if (Number.isFinite(found.seconds)) rating.seconds = found.seconds;
        for (const question of QUESTIONS) {
          if (isRating(found[question])) rating[question] = found[question];
        }
      }
    }
    if (typeof kept?.started === "string") session.started = kept.started;
    const place = kept?.place;
    if (Number.isInteger(place) && place in session.trials) {
      session.place = place;
    }
  };

  const store = () => {
    const [originals, ratings] = [{}, {}];
    for (const trial of session.trials) {
      originals[trial.code] = trial.plays;
      for (const { code, ...rating } of trial.ratings) ratings[code] = rating;
    }
    const { listener, place, started } = session;
    keep(OPEN, listener);
    const kept = { place, started, originals, ratings };
    keep(box(listener), JSON.stringify(kept));
  };

  const isRated = (rating) =>
    QUESTIONS.every((question) => rating[question] !== null);
  const isComplete = (trial) => trial.ratings.every(isRated);

  // -------------------------------------------------------------- players

  let audios = [];
  const silence = () => {
    for (const audio of audios) {
      audio.pause();
      audio.removeAttribute("src");
    }
    audios = [];
  };

  // Seconds of a sound that were played, each once.
  const covered = ({ played }) => {
    let total = 0;
    for (let i = 0; i < played.length; i++) {
      total += played.end(i) - played.start(i);
    }
    return total;
  };

  // `heard` counts how often the sound is played to its end.
  const addPlayer = (place, source, name, heard, ended = () => {}) => {
    const audio = new Audio(source);
    audios.push(audio);
    place.replaceChildren($("#player").content.cloneNode(true));
    const button = $(".play", place);
    const bar = $("progress", place);
    const say = (text) => {
      button.textContent = text;
      button.setAttribute("aria-label", `${text} ${name}`);
    };
    const failed = () => {
      if (!audio.hasAttribute("src")) return;
      $(".problem", place).textContent = "This sound cannot be played here.";
    };
    const follow = () => {
      bar.value = audio.currentTime / audio.duration || 0;
      if (!audio.paused) requestAnimationFrame(follow);
    };
    say("Play");
    button.addEventListener("click", () => {
      if (!audio.paused) {
        audio.pause();
        return;
      }
      for (const other of audios) {
        if (other === audio || other.paused) continue;
        other.pause();
        other.currentTime = 0;
      }
      audio.play().catch((error) => {
        // Paused before it could start, which is not a failure.
        if (error.name !== "AbortError") failed();
      });
    });
    audio.addEventListener("play", () => {
      heard.began ??= Date.now();
      say("Pause");
      follow();
    });
    audio.addEventListener("pause", () => {
      say("Play");
      bar.value = audio.currentTime / audio.duration || 0;
    });
    audio.addEventListener("ended", () => {
      audio.currentTime = 0;
      bar.value = 0;
      // A keyboard's media keys may skip to the end.
      if (covered(audio) < 0.95 * audio.duration) return;
      heard.plays++;
      session.saved = false;
      store();
      ended();
    });
    audio.addEventListener("error", failed);
  };

  // --------------------------------------------------------------- sliders

  const addQuestion = (place, rating, id, legend) => {
    const { question } = place.dataset;
    const slider = $("input", place);
    const output = $("output", place);
    const label = $("label", place);
    slider.id = id;
    label.htmlFor = id;
    label.id = `${id}-label`;
    slider.setAttribute("aria-labelledby", `${legend} ${label.id}`);
    const show = () => {
      const value = rating[question];
      const blank = rating.plays ? "not rated" : "play it to the end first";
      slider.disabled = !rating.plays;
      place.classList.toggle("rated", value !== null);
      output.textContent = value ?? blank;
      if (value !== null) {
        slider.value = value;
        place.classList.remove("missing");
        slider.removeAttribute("aria-invalid");
        slider.removeAttribute("aria-valuetext");
      } else {
        slider.value = 50;
        slider.setAttribute("aria-valuetext", blank);
      }
    };
    const rate = () => {
      if (!rating.plays) return;
      rating[question] = Number(slider.value);
      // To hundredths; a clock may have been set back.
      const taken = Math.round((Date.now() - rating.began) / 10) / 100;
      rating.seconds = Math.max(rating.seconds, taken, 0);
      session.saved = false;
      show();
      store();
    };
    slider.addEventListener("input", rate);
    // The middle is a rating too, if the listener confirms it.
    slider.addEventListener("pointerup", (event) => {
      if (event.button === 0) rate();
    });
    slider.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        rate();
      }
    });
    show();
    return show;
  };

  // ---------------------------------------------------------------- screens

  const show = (name, focus = true) => {
    silence();
    for (const section of all("main > section")) {
      section.hidden = section.id !== name;
    }
    $("#summary").textContent = session
      ? `Listener ${session.listener} · sounds rated: ` +
        `${session.trials.filter(isComplete).length} of ${n}`
      : `${n} ${n === 1 ? "sound" : "sounds"}`;
    if (!focus) return;
    scrollTo(0, 0);
    $(`#${name}-title`).focus({ preventScroll: true });
  };

  const showTrial = (place, focus = true) => {
    session.place = place;
    store();
    show("trial", focus);
    const trial = session.trials[place];
    const sounds = data(`trial-${trial.code}`);
    $("#trial-title").textContent = `Sound ${place + 1} of ${n}`;
    $("#decision").textContent = trial.decision;
    $("#missing").textContent = "";
    addPlayer($("#original"), sounds.original, "the original sound", trial);
    $("#original .play").after("Original sound");
    const cards = trial.ratings.map((rating, i) => {
      const card = $("#explanation").content.firstElementChild.cloneNode(true);
      const name = `Explanation ${i + 1}`;
      const legend = $("legend", card);
      legend.textContent = name;
      legend.id = `legend-${i}`;
      const shows = all(".question", card).map((question) => {
        const id = `${question.dataset.question}-${i}`;
        return addQuestion(question, rating, id, legend.id);
      });
      const ended = () => shows.forEach((show) => show());
      addPlayer($(".player", card), sounds[rating.code], name, rating, ended);
      return card;
    });
    $("#explanations").replaceChildren(...cards);
    $("#back").hidden = place === 0;
    $("#next").textContent = place === n - 1 ? "Save ratings" : "Next";
  };

  // Whether the shown trial is fully rated; if not, point out what is missing.
  const check = () => {
    const { ratings } = session.trials[session.place];
    const unheard = ratings.filter(({ plays }) => !plays).length;
    if (unheard) {
      $("#missing").textContent =
        unheard === 1
          ? "One explanation has not been played to its end yet."
          : `${unheard} explanations have not been played to their end yet.`;
      const first = ratings.findIndex(({ plays }) => !plays);
      all("#explanations .play")[first].focus();
      return false;
    }
    const cards = all("#explanations .question").filter(
      (card, i) =>
        ratings[Math.floor(i / QUESTIONS.length)][card.dataset.question] ===
        null
    );
    for (const card of cards) {
      card.classList.add("missing");
      $("input", card).setAttribute("aria-invalid", "true");
    }
    if (!cards.length) return true;
    $("#missing").textContent =
      cards.length === 1
        ? "One slider of this sound is not rated yet."
        : `${cards.length} sliders of this sound are not rated yet.`;
    $("input", cards[0]).focus();
    return false;
  };

  const save = () => {
    const { listener, started, trials } = session;
    const content = {
      test: index.test,
      listener,
      started,
      saved: new Date().toISOString(),
      trials: trials.map(({ code, plays, ratings }) => ({
        trial: code,
        plays,
        ratings: ratings.map(({ began, ...rating }) => rating),
      })),
    };
    const text = JSON.stringify(content, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(
      new Blob([text], { type: "application/json" })
    );
    const name = listener.replace(/[^\p{L}\p{N}_-]+/gu, "_");
    link.download = `ratings-${index.test}-${name}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    session.saved = true;
    $("#file").textContent = link.download;
    show("done");
  };

  const forward = () => {
    if (!check()) return;
    if (session.place < n - 1) {
      showTrial(session.place + 1);
      return;
    }
    const open = session.trials.findIndex((trial) => !isComplete(trial));
    if (open < 0) {
      save();
      return;
    }
    showTrial(open);
    check();
  };

  // ------------------------------------------------------------------ begin

  $("#who").addEventListener("submit", (event) => {
    event.preventDefault();
    const listener = $("#listener").value.trim().normalize("NFC");
    $("#listener").value = listener;
    if (!$("#who").reportValidity()) return;
    open(listener);
    showTrial(session.place);
  });
  $("#next").addEventListener("click", forward);
  $("#back").addEventListener("click", () => showTrial(session.place - 1));
  $("#change").addEventListener("click", () => showTrial(0));
  $("#again").addEventListener("click", save);
  $("#other").addEventListener("click", () => {
    session = null;
    keep(OPEN, null);
    $("#listener").value = "";
    show("start");
  });
  addEventListener("beforeunload", (event) => {
    if (session && !session.saved && !keeps) event.preventDefault();
  });

  const listener = recall(OPEN);
  $("#forgets").hidden = keeps;
  if (listener) {
    open(listener);
    showTrial(session.place, false);
  } else show("start", false);
})();
