// Names of methods, data and classifiers enter the page as text only.
"use strict";
(() => {
  const { $, all, data, element, sort } = dom;
  const index = data("index");
  const { cells, figures, differences, losses, notes } = index;
  const [EQUAL, OWN] = index.keeps;
  const AS_IS = index.groups["agreement, robustness and cost"] ?? [];
  const ARROWS = new Map([[1, " ↑"], [-1, " ↓"], [0, ""]]);
  const LONGEST = 80; // characters of a name

  const short = (text) =>
    text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
  const named = (text, tag = "bdi") => {
    const made = element(tag, short(text));
    if (text.length > LONGEST) made.title = text.slice(0, 2000);
    return made;
  };
  const shown = (value, measure) =>
    value === null ? "–" : (value + 0).toFixed(index.digits[measure]).replace(/^-(0\.?0*)$/, "$1");
  const arrowed = (measure) => `${measure}${ARROWS.get(index.directions[measure])}`;

  // ---------------------------------------------------------------- menus

  const fill = (menu, pairs) => {
    const before = menu.value;
    menu.replaceChildren(
      ...pairs.map(([value, text]) => {
        const option = element("option", short(text));
        option.value = value;
        return option;
      })
    );
    if (pairs.some(([value]) => value === before)) menu.value = before;
  };
  const unique = (values) => [...new Set(values)];
  const same = (values) => values.map((value) => [value, value]);
  const menus = Object.fromEntries(
    all("#filters select").map((menu) => [menu.id, menu])
  );
  fill(menus.data, same(unique(cells.map((cell) => cell.data))));
  fill(menus.keep, [[EQUAL, "equal area"], [OWN, "own area"]]);
  const fillBelow = () => {
    const here = cells.filter((cell) => cell.data === menus.data.value);
    fill(menus.classifier, same(here.map((cell) => cell.classifier)));
    const others = unique(there(differences).map((line) => line.minus));
    fill(menus.minus, [["", "means"], ...others.map((x) => [x, `minus ${x}`])]);
    const found = new Set(there(figures).map((line) => line.measure));
    const known = Object.values(index.groups).flat();
    fill(menus.measure, same(known.filter((name) => found.has(name))));
  };
  // Lines of the chosen cell.
  const there = (lines) =>
    lines.filter(
      (line) =>
        line.data === menus.data.value && line.classifier === menus.classifier.value
    );
  const chosen = () => {
    const { minus, keep } = menus;
    const lines = minus.value
      ? differences.filter((line) => line.minus === minus.value)
      : figures;
    return there(lines).filter(
      (line) => line.keep === (AS_IS.includes(line.measure) ? OWN : keep.value)
    );
  };

  // --------------------------------------------------------------- tables

  const sorted = new Map(); // title of a table to its column and direction
  const makeTable = (title, measures, lines) => {
    const table = element("table", undefined, "sortable");
    table.append(element("caption", title));
    const head = element("tr");
    const body = element("tbody");
    const values = new Map(
      lines.map((line) => [JSON.stringify([line.method, line.measure]), line])
    );
    const at = (method, measure) => values.get(JSON.stringify([method, measure]));
    const methods = unique(lines.map((line) => line.method));
    const rows = methods.map((method, place) => {
      const row = element("tr", undefined, method.split("+")[0] === "lmac" ? "lmac" : "");
      const name = element("th");
      name.scope = "row";
      name.append(named(method));
      row.append(name);
      for (const measure of measures) row.append(makeCell(at(method, measure), measure, lines));
      return { row, method, place };
    });
    const arrange = () => {
      const [column, sign] = sorted.get(title) ?? [0, 0];
      const keyed = rows.map((one) => {
        const key = !sign ? one.place
          : column ? at(one.method, measures[column - 1])?.mean ?? null
            : one.method;
        return [key, one];
      });
      sort(keyed, sign || 1, (a, b) => (a < b ? -1 : a > b ? 1 : 0));
      body.append(...keyed.map(([, { row }]) => row));
      all("th", head).forEach((cell, i) => {
        const state = !sign || i !== column ? "none" : sign > 0 ? "ascending" : "descending";
        cell.setAttribute("aria-sort", state);
      });
    };
    ["method", ...measures].forEach((name, i) => {
      const cell = element("th");
      cell.scope = "col";
      const button = element("button", i ? arrowed(name) : name, "sort");
      button.type = "button";
      if (i) button.dataset.tip = index.meanings[name];
      button.addEventListener("click", () => {
        const [column, sign] = sorted.get(title) ?? [-1, 0];
        const first = i && index.directions[name] > 0 ? -1 : 1; // the best on top
        sorted.set(title, [i, column === i ? -sign : first]);
        arrange();
      });
      cell.append(button);
      head.append(cell);
    });
    const top = element("thead");
    top.append(head);
    table.append(top, body);
    arrange();
    return table;
  };
  const makeCell = (line, measure, lines) => {
    const cell = element("td");
    if (!line || line.mean === null) {
      cell.textContent = "–";
      return cell;
    }
    const sign = index.directions[measure];
    cell.append(shown(line.mean, measure));
    const ends = [line.low, line.high].map((x) => shown(x, measure)).join(", ");
    const interval = element("span", `[${ends}]`, "interval");
    interval.title = `${line.n} clips`;
    cell.append(" ", interval);
    if (line.minus !== undefined) {
      if (sign * (sign > 0 ? line.low : line.high) > 0) cell.classList.add("good");
      if (sign * (sign > 0 ? line.high : line.low) < 0) cell.classList.add("bad");
    } else if (sign) {
      const column = lines.filter((x) => x.measure === measure && x.mean !== null);
      const best = Math.max(...column.map((x) => sign * x.mean));
      // What looks the same is as good.
      if (shown(line.mean, measure) === shown(sign * best, measure)) cell.classList.add("best");
    }
    return cell;
  };
  const showTables = (lines) => {
    const found = new Set(lines.map((line) => line.measure));
    const parts = [];
    for (const [title, names] of Object.entries(index.groups)) {
      const measures = names.filter((name) => found.has(name));
      if (!measures.length) continue;
      const part = lines.filter((line) => measures.includes(line.measure));
      const scroll = element("div", undefined, "scroll");
      scroll.tabIndex = 0;
      scroll.setAttribute("role", "region");
      scroll.setAttribute("aria-label", title);
      scroll.append(makeTable(title, measures, part));
      parts.push(element("h3", `${title[0].toUpperCase()}${title.slice(1)}`), scroll);
    }
    if (!parts.length) parts.push(element("p", "No figures of this kind here.", "none"));
    $("#tables .list").replaceChildren(...parts);
  };

  // ---------------------------------------------------------------- plots

  const showPlot = (lines) => {
    const measure = menus.measure.value;
    const what = menus.minus.value ? `, minus ${menus.minus.value}` : "";
    $("#plot-title").textContent = `${arrowed(measure)}${what}`;
    const part = lines.filter((line) => line.measure === measure && line.mean !== null);
    const made = part.length
      ? charts.forest(
          part.map(({ method, mean, low, high }) => ({
            name: short(method), mean, low, high, own: method.split("+")[0] === "lmac",
          })),
          `${measure} of each method`
        )
      : element("p", "No figures of this measure here.", "none");
    $("#plot").replaceChildren(made);
  };
  const showRobust = () => {
    const of = (measure) =>
      new Map(
        there(figures)
          .filter((line) => line.keep === OWN && line.measure === measure)
          .map((line) => [line.method, line.mean])
      );
    const decision = of("decision change");
    const points = [...of("mask change")]
      .filter(([method, value]) => value !== null && (decision.get(method) ?? null) !== null)
      .map(([method, y]) => ({
        name: short(method), x: decision.get(method), y, own: method.split("+")[0] === "lmac",
      }));
    const made = points.length
      ? charts.scatter(points, "change of the decision", "change of the mask")
      : element("p", "Not measured here.", "none");
    $("#robust").replaceChildren(made);
  };

  // ---------------------------------------------------------------- texts

  const cellText = (cell) => {
    const folds = Object.entries(cell.folds).map(([name, x]) => `${name} ${[x].flat().join(", ")}`);
    const right = `${(100 * cell.accuracy).toFixed(1)} %`;
    const decided = cell.several
      ? `${cell.explained} classes are decided for in them, each of which is explained on its own; ${right} of them are right. `
      : `Accuracy on these clips: ${right}. `;
    let text =
      `${cell.clips} of ${cell.tested} test clips; folds: ${folds.join("; ")}. ` +
      decided +
      `Reference of the area: ${cell.reference}. Judge: ${cell.judge}.`;
    if (cell.left_out.length) text += ` Not available here: ${cell.left_out.join(", ")}.`;
    for (const { method, n, error } of cell.errors) {
      text += ` ${short(method)} failed on ${n} clips: ${error.slice(0, 500)}.`;
    }
    for (const { method, n, warning } of cell.warnings ?? []) {
      text += ` ${short(method)}: ${warning.slice(0, 500)} on ${n} clips.`;
    }
    return text;
  };
  const showLosses = () => {
    const cell = cells.find((x) => there([x]).length);
    const intro = $("#losses-title + .intro");
    if (cell.reference !== "lmac") {
      intro.textContent = "This classifier has no decoder of L-MAC.";
      $("#losses").replaceChildren();
      return;
    }
    intro.textContent =
      "Where another method is better than lmac, clip by clip, and the interval " +
      "of the difference does not hold zero. Other masks of L-MAC do not " +
      "count, nor does the ideal one, which was told the answer.";
    const items = there(losses).map((line) => {
      const item = element("li");
      const ends = [line.mean, line.low, line.high].map((x) => Number(x.toPrecision(2)));
      item.append(
        named(line.method, "b"),
        ` ${arrowed(line.measure)}, ${line.keep}: ${ends[0]} [${ends[1]}, ${ends[2]}]`
      );
      return item;
    });
    if (!items.length) items.push(element("li", "nowhere"));
    $("#losses").replaceChildren(...items);
  };
  const show = () => {
    const lines = chosen();
    const cell = cells.find((x) => there([x]).length);
    $("#facts").textContent = cellText(cell);
    showPlot(lines);
    showTables(lines);
    showLosses();
    showRobust();
  };

  const methods = unique(figures.map((line) => line.method));
  $("#summary").textContent =
    `${methods.length} methods, ${unique(cells.map((x) => x.classifier)).length} classifiers, ` +
    `${unique(cells.map((x) => x.data)).length} data sets.`;
  $("#missing").hidden = !notes.length;
  $("#missing ul").append(...notes.map((note) => element("li", note.slice(0, 2000))));
  for (const [name, meaning] of Object.entries(index.meanings)) {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", meaning));
    $("#meanings").append(pair);
  }
  for (const [name, value] of Object.entries(index.made)) {
    const pair = element("div");
    const text = typeof value === "string" ? value : JSON.stringify(value);
    pair.append(element("dt", name), element("dd", text.slice(0, 2000)));
    $("#made").append(pair);
  }
  menus.data.addEventListener("change", fillBelow);
  menus.classifier.addEventListener("change", fillBelow);
  $("#filters").addEventListener("change", show);
  fillBelow();
  fillBelow(); // the classifier is known now
  show();
})();
