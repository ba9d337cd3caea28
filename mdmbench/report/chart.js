// The front: score against what it cost.

/** Markers of radius r about the origin, in the order of the colours. */
const MARKS = [
  (r) => `M${-r} 0A${r} ${r} 0 1 0 ${r} 0A${r} ${r} 0 1 0 ${-r} 0Z`,
  (r) => `M${-r} ${-r}H${r}V${r}H${-r}Z`,
  (r) => `M0 ${-1.3 * r}L${1.3 * r} 0L0 ${1.3 * r}L${-1.3 * r} 0Z`,
  (r) => `M0 ${-1.2 * r}L${1.15 * r} ${r}H${-1.15 * r}Z`,
  (r) => `M0 ${1.2 * r}L${1.15 * r} ${-r}H${-1.15 * r}Z`,
  (r) => `M${-r / 2} ${-r * 1.2}h${r}v${0.7 * r}h${0.7 * r}v${r}h${-0.7 * r}v${0.7 * r}h${-r}`
    + `v${-0.7 * r}h${-0.7 * r}v${-r}h${0.7 * r}Z`,
  (r) => `M0 ${-r / 2}L${0.7 * r} ${-1.2 * r}L${1.2 * r} ${-0.7 * r}L${r / 2} 0L${1.2 * r} `
    + `${0.7 * r}L${0.7 * r} ${1.2 * r}L0 ${r / 2}L${-0.7 * r} ${1.2 * r}L${-1.2 * r} ${0.7 * r}`
    + `L${-r / 2} 0L${-1.2 * r} ${-0.7 * r}L${-0.7 * r} ${-1.2 * r}Z`,
  (r) => `M${-1.2 * r} 0L${r} ${-1.15 * r}V${1.15 * r}Z`,
];

const look = (i) => ({ color: `k${i % 7}`, mark: MARKS[i % MARKS.length] });

/** Steps of 1, 2 or 5 times a power of ten that part `span` into about `parts`. */
const stride = (span, parts) => {
  const power = 10 ** Math.floor(Math.log10(span / parts));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= span / parts);
};

/** Powers of two where they are few enough, else of ten. */
const ticks = (low, high) => {
  const base = Math.log2(high / low) > 12 ? 10 : 2;
  const first = Math.ceil(Math.log(low) / Math.log(base) - 1e-9);
  const last = Math.floor(Math.log(high) / Math.log(base) + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => base ** (first + i));
};

const points = (group, axis) => {
  const rules = [...new Set(group.rows.map((row) => row.rule))];
  return group.rows
    .map((row, number) => {
      const [x, left, right] = axis === "nfe" ? row.nfe ?? [] : [row.seconds?.[0]];
      const [y, low, high] = row.score ?? [];
      return { row, number, x, left: left ?? x, right: right ?? x, y, low, high,
        rule: rules.indexOf(row.rule) };
    })
    .filter(({ x, y }) => x > 0 && y !== undefined);
};

/** The points that no other beats: none is as good for less, or better for as much. */
const frontier = (known) => {
  const sorted = [...known].sort((a, b) => a.x - b.x || b.y - a.y);
  let best = -Infinity;
  return sorted.filter(({ y }) => y > best && ((best = y), true));
};

/** Scales of a plot that is `width` x `height` with room for its axes. */
const scales = (known, width, height) => {
  const box = { left: 46, right: width - 14, top: 14, bottom: height - 42 };
  let low = Math.min(...known.map((p) => p.left)) / 1.15;
  let high = Math.max(...known.map((p) => p.right)) * 1.15;
  if (ticks(low, high).length < 2) {
    [low, high] = [2 ** Math.floor(Math.log2(low)), 2 ** Math.ceil(Math.log2(high))];
  }
  const [bottom, top] = [Math.min(...known.map((p) => p.low)), Math.max(...known.map((p) => p.high))];
  const step = stride(Math.max(top - bottom, 1), 5);
  const floor = Math.max(0, Math.floor(bottom / step) * step);
  const ceiling = Math.min(100, Math.ceil(top / step) * step);
  const x = (v) => box.left
    + ((box.right - box.left) * Math.log(v / low)) / Math.log(high / low);
  const y = (v) => box.bottom - ((box.bottom - box.top) * (v - floor)) / (ceiling - floor || 1);
  const rungs = [];
  for (let v = floor; v <= ceiling + 1e-9; v += step) rungs.push(Number(v.toPrecision(6)));
  return { box, x, y, rungs, ticks: ticks(low, high) };
};

const axes = ({ box, x, y, rungs, ticks }, names) => {
  const wide = Math.ceil(ticks.length / Math.max(2, Math.floor((box.right - box.left) / 44)));
  const shown = ticks.filter((_, i) => i % wide === 0);
  return svg("g", { "aria-hidden": "true" },
    rungs.map((v) => [
      svg("line", { class: "gridline", x1: box.left, x2: box.right, y1: y(v), y2: y(v) }),
      svg("text", { x: box.left - 8, y: y(v) + 4, "text-anchor": "end" }, plain(v)),
    ]),
    shown.map((v) => [
      svg("line", { class: "axis", x1: x(v), x2: x(v), y1: box.bottom, y2: box.bottom + 5 }),
      svg("text", { x: x(v), y: box.bottom + 18, "text-anchor": "middle" }, plain(v)),
    ]),
    svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    svg("text", { x: box.right, y: box.bottom + 35, "text-anchor": "end" }, names.x));
};

const path = (list, x, y) => list.map((p, i) => `${i ? "L" : "M"}${x(p.x)} ${y(p.y)}`).join("");

/** A staircase along the frontier, out to the right edge. */
const stairs = (list, { box, x, y }) => {
  const steps = list.map((p, i) => (i ? `H${x(p.x)}V${y(p.y)}` : `M${x(p.x)} ${y(p.y)}`));
  return svg("path", { class: "frontier", d: `${steps.join("")}H${box.right}` });
};

/** Numbers beside their points, where they cover no other. */
const labels = (known, { box, x, y }) => {
  const taken = known.map((p) => [x(p.x) - 6, y(p.y) - 6, x(p.x) + 6, y(p.y) + 6]);
  return new Map(known.map((p) => {
    const text = p.row.baseline ? "" : p.row.numbers;
    const width = 6.3 * text.length;
    for (const [dx, dy] of [[8, -7], [8, 15], [-8 - width, -7], [-8 - width, 15]]) {
      const [left, base] = [x(p.x) + dx, y(p.y) + dy];
      const area = [left, base - 9, left + width, base + 2];
      const free = area[0] > box.left && area[2] < box.right + 12 && base < box.bottom
        && taken.every(([a, b, c, d]) =>
          area[2] < a || area[0] > c || area[3] < b || area[1] > d);
      if (text && free) {
        taken.push(area);
        return [p, svg("text", { x: dx, y: dy, "aria-hidden": "true" }, text)];
      }
    }
    return [p, null];
  }));
};

const spoken = (row, columns) =>
  [row.label + (row.baseline ? ", baseline" : ""),
    ...columns.map((name, i) => `${flat(name)} ${told(row.cells[i])}`)].join("; ");

const tip = (group, row) => el("div", { class: "tip", "aria-hidden": "true" },
  el("strong", {}, rowName(row)),
  pairs(group.columns.map((name, i) => [flat(name), told(row.cells[i])])
    .concat([["examples", String(row.n)]]), ""));

/** A point that can be pointed at, tapped, and reached by arrow keys. */
const point = (p, first, { x, y }, label, group, show) => {
  const { color, mark } = look(p.rule);
  const [left, right, low, high] = [x(p.left) - x(p.x), x(p.right) - x(p.x),
    y(p.low) - y(p.y), y(p.high) - y(p.y)];
  return svg("g", {
    class: `point ${color}`, tabindex: first ? 0 : -1, role: "img",
    "aria-label": spoken(p.row, group.columns), transform: `translate(${x(p.x)} ${y(p.y)})`,
    onfocus: (event) => show(p, event.currentTarget), onblur: () => show(null),
    onpointerenter: (event) => show(p, event.currentTarget), onpointerleave: () => show(null),
    onclick: (event) => event.currentTarget.focus(),
  },
  svg("line", { class: "error", x1: left, x2: right, y1: 0, y2: 0 }),
  svg("line", { class: "error", x1: 0, x2: 0, y1: low, y2: high }),
  p.row.baseline ? svg("circle", { class: "ring", r: 9 }) : null,
  svg("path", { class: "mark", d: mark(4.5) }),
  svg("circle", { class: "halo", r: 13 }), label);
};

const legend = (group, known) => {
  const rules = [...new Set(group.rows.map((row) => row.rule))];
  const item = (text, color, ...shapes) => el("li", {},
    svg("svg", { class: color, viewBox: "-11 -7 22 14", "aria-hidden": "true" }, shapes), text);
  const dash = svg("path", { class: "open", d: "M-11 0H11", "stroke-dasharray": "2 3" });
  return el("ul", { class: "legend" },
    rules.map((rule, i) => known.some((p) => p.rule === i)
      ? item(rule, look(i).color, svg("path", { d: "M-11 0H11" }),
        svg("path", { d: look(i).mark(4) })) : null),
    known.some((p) => p.row.baseline)
      ? item("baseline", "", svg("path", { class: "open", d: MARKS[0](6) })) : null,
    item("frontier: no run is as good for less", "", dash));
};

/** Moves the focus among the points of a plot from left to right. */
const roam = (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const nodes = [...event.currentTarget.querySelectorAll(".point")];
  const next = nodes[nodes.indexOf(document.activeElement) + step];
  if (!step || !next) return;
  event.preventDefault();
  next.focus();
};

const draw = (host, group, axis) => {
  const known = points(group, axis).sort((a, b) => a.x - b.x);
  const width = Math.max(280, host.clientWidth);
  const height = Math.round(Math.min(430, Math.max(270, 0.45 * width)));
  const scale = scales(known, width, height);
  const beside = labels(known, scale);
  let open = null;
  const show = (p, node) => {
    open?.remove();
    open = p && tip(group, p.row);
    if (!p) return;
    host.append(open);
    const [at, from] = [node.getBoundingClientRect(), host.getBoundingClientRect()];
    const middle = scale.x(p.x) + (scale.x(p.x) > width / 2 ? -open.offsetWidth - 18 : 18);
    const left = Math.max(0, Math.min(middle, width - open.offsetWidth));
    const under = middle === left ? scale.y(p.y) - open.offsetHeight / 2 : at.bottom - from.top + 8;
    open.style.setProperty("left", `${left}px`);
    open.style.setProperty("top", `${Math.max(0, under)}px`);
  };
  const names = { x: axis === "nfe" ? "NFE: model calls an example (mean, log scale)"
    : "seconds an example (mean, log scale)" };
  const rules = [...new Set(known.map((p) => p.rule))];
  host.replaceChildren(svg("svg", {
    class: "plot", viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": `${group.headline} against ${names.x}`,
    onkeydown: (event) => (event.key === "Escape" ? show(null) : roam(event)),
  },
  axes(scale, names), stairs(frontier(known), scale),
  rules.map((rule) => svg("path", { class: `curve ${look(rule).color}`,
    d: path(known.filter((p) => p.rule === rule), scale.x, scale.y) })),
  known.map((p, i) => point(p, i === 0, scale, beside.get(p), group, show))));
};

/** The front of a group, drawn anew whenever its width changes. */
const front = (group) => {
  if (!points(group, "nfe").length) return [el("p", {}, "No run has a score to draw.")];
  const host = el("div");
  let [axis, width] = ["nfe", 0];
  new ResizeObserver(() => {
    if (host.clientWidth === width) return;
    width = host.clientWidth;
    draw(host, group, axis);
  }).observe(host);
  const timed = points(group, "seconds").length > 0;
  const swap = (on) => {
    axis = on ? "seconds" : "nfe";
    draw(host, group, axis);
  };
  return [
    timed ? el("div", { class: "bar" }, checkbox("Seconds on the horizontal axis", swap)) : null,
    el("p", { class: "quiet" }, `${group.headline} (%), with 95 % intervals`),
    el("figure", {}, host, legend(group, points(group, "nfe"))),
  ];
};
