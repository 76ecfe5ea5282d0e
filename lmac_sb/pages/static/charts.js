// Small charts as SVG: a mean with its interval, and a profile over an axis.
"use strict";
const charts = (() => {
  const make = (tag, values = {}, ...inner) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(values)) {
      made.setAttribute(name, value);
    }
    made.append(...inner);
    return made;
  };
  const label = (x, y, text, anchor = "middle") =>
    make("text", { x, y, "text-anchor": anchor }, text);
  const frame = (width, height, title) => {
    const view = `0 0 ${width} ${height}`;
    const svg = make("svg", { viewBox: view, role: "img", "aria-label": title });
    svg.style.maxWidth = `${width / 12}rem`;
    return svg;
  };

  // A round number that is not below another one.
  const roundUp = (value) => {
    const power = 10 ** Math.floor(Math.log10(value));
    return power * [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((x) => x * power >= value * 0.9999);
  };
  const plain = (value) => String(Number(value.toPrecision(3)));

  // A mean, with its interval if there is one, on an axis that holds zero.
  const interval = ([mean, low, high], title, show) => {
    const [WIDTH, LEFT, RIGHT] = [300, 12, 288];
    const known = [mean, low, high].filter((x) => x !== null);
    const least = Math.min(...known) < 0 ? -1 : 0;
    const reach = Math.max(...known.map(Math.abs));
    const end = reach > 1 ? roundUp(reach) : 1;
    const place = (x) =>
      LEFT + ((RIGHT - LEFT) * (x - least * end)) / (end - least * end);
    const svg = frame(WIDTH, 38, title);
    svg.classList.add("interval");
    svg.append(make("path", { class: "axis", d: `M${LEFT} 24H${RIGHT}` }));
    const ticks = least ? [-end, 0, end] : [0, end / 2, end];
    for (const tick of ticks) {
      const x = place(tick);
      svg.append(make("path", { class: "axis", d: `M${x} 21V27` }));
      svg.append(label(x, 37, show(tick)));
    }
    if (low !== null && high !== null) {
      const [from, to] = [place(low), place(high)];
      svg.append(
        make("path", { class: "range", d: `M${from} 12H${to}` }),
        make("path", { class: "ends", d: `M${from} 7V17M${to} 7V17` })
      );
    }
    if (mean !== null) {
      svg.append(make("circle", { class: "mean", cx: place(mean), cy: 12, r: 4.5 }));
    }
    return svg;
  };

  // Parts of an axis that are known, as runs of neighbours.
  const runs = ({ mean, low, high }) => {
    const found = [];
    mean.forEach((value, i) => {
      if (value === null) return;
      const last = found.at(-1);
      const part = { i, mean: value, low: low[i] ?? value, high: high[i] ?? value };
      if (last?.at(-1).i === i - 1) last.push(part);
      else found.push([part]);
    });
    return found;
  };

  // A mean over the parts of an axis, with its interval as a shade. The axis
  // says where a value lies, from 0 to 1, and which have a tick.
  const profile = ({ edges, values, axis, name, mark, title }) => {
    const [WIDTH, HEIGHT] = [360, 132];
    const [LEFT, RIGHT, TOP, BOTTOM] = [34, 352, 8, 96];
    const x = (value) => LEFT + (RIGHT - LEFT) * axis.place(value);
    const parts = runs(values);
    const top = Math.max(0, ...parts.flat().map((part) => part.high));
    const end = top > 0 ? roundUp(top) : 1;
    const y = (value) => BOTTOM - ((BOTTOM - TOP) * Math.max(0, value)) / end;
    const svg = frame(WIDTH, HEIGHT, title);
    svg.classList.add("profile");
    if (mark) {
      const [from, to] = mark.map((value) => Math.min(RIGHT, Math.max(LEFT, x(value))));
      svg.append(
        make("rect", {
          class: "marked",
          x: Math.min(from, RIGHT - 3),
          y: TOP - 4,
          width: Math.max(3, to - from),
          height: BOTTOM - TOP + 4,
        })
      );
    }
    for (const run of parts) {
      const line = (key) =>
        run.map((part) => [
          [x(edges[part.i]), y(part[key])],
          [x(edges[part.i + 1]), y(part[key])],
        ]).flat();
      const path = (points) => points.map((point) => point.join(" ")).join("L");
      const shade = [...line("high"), ...line("low").reverse()];
      svg.append(
        make("path", { class: "shade", d: `M${path(shade)}Z` }),
        make("path", { class: "line", d: `M${path(line("mean"))}` })
      );
    }
    svg.append(make("path", { class: "axis", d: `M${LEFT} ${TOP}V${BOTTOM}H${RIGHT}` }));
    for (const value of [0, end]) {
      svg.append(label(LEFT - 4, y(value) + 4, `${plain(100 * value)} %`, "end"));
    }
    for (const [value, text] of axis.ticks) {
      const place = x(value);
      svg.append(make("path", { class: "axis", d: `M${place} ${BOTTOM}v4` }));
      svg.append(label(place, BOTTOM + 15, text));
    }
    svg.append(label((LEFT + RIGHT) / 2, HEIGHT - 4, name));
    return svg;
  };

  // Axes of frequency, as far apart as one hears, and of time.
  const hertz = (edges) => {
    const mel = (value) => Math.log10(1 + value / 700);
    const [low, high] = [edges[0], edges.at(-1)];
    const place = (value) => (mel(value) - mel(low)) / (mel(high) - mel(low));
    const ticks = [0, 100, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000]
      .filter((value) => value >= low && value <= high)
      .map((value) => [value, value < 1000 ? `${value}` : `${value / 1000}k`])
      .filter(([value], i, all) => !i || place(value) - place(all[i - 1][0]) > 0.06);
    return { place, ticks };
  };
  const shares = (edges) => {
    const [low, high] = [edges[0], edges.at(-1)];
    const place = (value) => (value - low) / (high - low);
    const ticks = [0, 1, 2, 3, 4].map((i) => {
      const value = low + ((high - low) * i) / 4;
      return [value, `${plain(100 * value)}`];
    });
    return { place, ticks };
  };
  const overHertz = (bands, mark, title) =>
    profile({
      edges: bands.edges_hz,
      values: bands,
      axis: hertz(bands.edges_hz),
      name: "frequency in Hz",
      mark,
      title,
    });
  const overTime = (times, mark, title) =>
    profile({
      edges: times.edges,
      values: times,
      axis: shares(times.edges),
      name: "time in % of the clip",
      mark,
      title,
    });

  // Round numbers on an axis that holds all values.
  const ticksOf = (values) => {
    const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
    const step = roundUp((high - low || 1) / 4);
    const first = Math.floor(low / step + 1e-9);
    const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
    return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  };
  const scale = (ticks, from, to) => (value) =>
    from + ((to - from) * (value - ticks[0])) / (ticks.at(-1) - ticks[0]);

  // Means with their intervals, a line each, on one axis that holds zero.
  const forest = (lines, title) => {
    const [WIDTH, LEFT, RIGHT, TOP, LINE] = [640, 170, 620, 6, 22];
    const bottom = TOP + LINE * lines.length;
    const ticks = ticksOf(lines.flatMap(({ mean, low, high }) => [mean, low, high]));
    const x = scale(ticks, LEFT, RIGHT);
    const svg = frame(WIDTH, bottom + 24, title);
    svg.classList.add("forest");
    for (const tick of ticks) {
      const name = Math.abs(tick) < 1e-12 ? "axis" : "grid";
      svg.append(make("path", { class: name, d: `M${x(tick)} ${TOP}V${bottom}` }));
      svg.append(label(x(tick), bottom + 15, plain(tick)));
    }
    lines.forEach(({ name, mean, low, high, own }, i) => {
      const y = TOP + LINE * (i + 0.5);
      const part = make("g", own ? { class: "own" } : {});
      part.append(
        label(LEFT - 8, y + 4, name.length > 26 ? `${name.slice(0, 25)}…` : name, "end"),
        make("path", { class: "range", d: `M${x(low)} ${y}H${x(high)}` }),
        make("circle", { class: "mean", cx: x(mean), cy: y, r: 4.5 })
      );
      svg.append(part);
    });
    return svg;
  };

  // Named points on two axes that hold zero.
  const scatter = (points, nameX, nameY) => {
    const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [640, 300, 60, 500, 10, 250];
    const ticks = [points.map((point) => point.x), points.map((point) => point.y)].map(ticksOf);
    const [x, y] = [scale(ticks[0], LEFT, RIGHT), scale(ticks[1], BOTTOM, TOP)];
    const svg = frame(WIDTH, HEIGHT, `${nameY} against ${nameX}`);
    svg.classList.add("scatter");
    svg.append(make("path", { class: "axis", d: `M${LEFT} ${TOP}V${BOTTOM}H${RIGHT}` }));
    for (const tick of ticks[0]) svg.append(label(x(tick), BOTTOM + 16, plain(tick)));
    for (const tick of ticks[1]) svg.append(label(LEFT - 6, y(tick) + 4, plain(tick), "end"));
    svg.append(label((LEFT + RIGHT) / 2, HEIGHT - 12, nameX));
    svg.append(label(LEFT, TOP - 2, nameY, "start"));
    // Names beside the points, one below the other where they would meet.
    let free = TOP;
    for (const point of [...points].sort((a, b) => b.y - a.y)) {
      const place = Math.max(free, y(point.y) + 4);
      free = place + 13;
      const part = make("g", point.own ? { class: "own" } : {});
      part.append(
        make("path", { class: "grid", d: `M${x(point.x) + 6} ${y(point.y)}L${RIGHT + 14} ${place - 4}` }),
        make("circle", { class: "mean", cx: x(point.x), cy: y(point.y), r: 4.5 }),
        label(RIGHT + 18, place, point.name.length > 22 ? `${point.name.slice(0, 21)}…` : point.name, "start")
      );
      svg.append(part);
    }
    return svg;
  };

  return { forest, interval, overHertz, overTime, scatter };
})();
