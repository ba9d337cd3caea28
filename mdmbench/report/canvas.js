// The canvas of one example, as one run filled it.

/** Viridis, which grows lighter all the way and is told apart without seeing colours. */
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

const shade = (t) => {
  const at = Math.min(Math.max(t, 0), 1) * (RAMP.length - 1);
  const i = Math.min(Math.floor(at), RAMP.length - 2);
  return RAMP[i].map((low, c) => Math.round(low + (at - i) * (RAMP[i + 1][c] - low)));
};

/** Black or white, whichever stands out more: 4.5 to 1 at least. */
const ink = (rgb) => {
  const [r, g, b] = rgb.map((v) => (v <= 10 ? v / 3294 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
};

const stepsOf = ({ at }) => at.reduce((most, step) => Math.max(most, step + 1), 0);

/** A scale over the positions that were filled: `share` is in [0, 1]. */
const COLOURS = {
  step: () => ({ low: "the run's first step", high: "its last",
    share: (trace, i) => trace.at[i] / Math.max(1, stepsOf(trace) - 1) }),
  entropy: (traces) => {
    const known = traces.flatMap(({ entropy, at }) => entropy.filter((v, i) => at[i] >= 0 && v > 0));
    // Below a millionth of a nat there is nothing left to tell apart.
    const [low, high] = [Math.max(Math.min(...known, 1), 1e-6), Math.max(...known, 2e-6)];
    const span = Math.log(high / low) || 1;
    return { low: `${plain(low)} nats or less`, high: `${plain(high)} nats (log scale)`,
      share: (trace, i) => Math.log(Math.max(trace.entropy[i] ?? 0, low) / low) / span };
  },
  confidence: (traces) => {
    const known = traces.flatMap(({ confidence, at }) => confidence.filter((_, i) => at[i] >= 0));
    const low = Math.min(...known, 1);
    return { low: plain(low), high: "1",
      share: (trace, i) => ((trace.confidence[i] ?? 0) - low) / (1 - low || 1) };
  },
};

/** Of each step: how many were committed, the sum of their entropies, and what was spent by then. */
const ledger = (trace) => {
  const rows = Array.from({ length: stepsOf(trace) }, () => ({ count: 0, sum: 0, most: 0 }));
  trace.at.forEach((step, i) => {
    if (step < 0) return;
    const entropy = trace.entropy[i] ?? 0;
    rows[step].count += 1;
    rows[step].sum += entropy;
    rows[step].most = Math.max(rows[step].most, entropy);
  });
  let [filled, spent] = [0, 0];
  for (const row of rows) {
    row.filled = filled += row.count;
    row.spent = spent += row.sum - row.most;
  }
  return rows;
};

const SPECIAL = /^<[^<>\s]+>$/;

const cellText = (symbol) => (symbol === "." ? "·" : symbol);

const pieceText = (symbol) => (SPECIAL.test(symbol) ? "∎" : symbol.replace("\n", "↵\n"));

/** The nodes of a canvas, one a position, and what holds them. */
const canvas = (example, trace) => {
  if (!example.width) {
    const nodes = trace.symbols.map((symbol) => el("span", { class: "piece" }, pieceText(symbol) || "·"));
    return { nodes, box: el("p", { class: "stream", role: "img", tabindex: 0 }, nodes) };
  }
  const nodes = trace.symbols.map((symbol, i) => {
    const walls = example.walls[i] ?? 0;
    const sides = ["n", "e", "s", "w"].filter((_, side) => (walls >> side) & 1);
    const mark = example.marks[i] ? el("span", { class: "sign" }, example.marks[i]) : null;
    const given = trace.at[i] < 0 && symbol !== "";
    return el("div", { class: ["cell", given && "given", ...sides].filter(Boolean).join(" ") },
      el("span", { class: "symbol" }, given ? cellText(symbol) : ""), mark);
  });
  const vars = { "--width": example.width };
  return { nodes, box: el("div", { class: "board", role: "img", vars }, nodes) };
};

const wholeText = (example, symbols) => {
  if (!example.width) return symbols.join("");
  const lines = [];
  for (let i = 0; i < symbols.length; i += example.width) {
    lines.push(symbols.slice(i, i + example.width).map((s) => s || "_").join(" "));
  }
  return lines.join("\n");
};

const folded = (name, text) =>
  text ? el("details", {}, el("summary", {}, name), el("pre", {}, text)) : null;

/** One run's side. `show(step, scale)` paints it and returns how much is filled. */
const lane = (row, example, trace) => {
  const { nodes, box } = canvas(example, trace);
  const rows = ledger(trace);
  const total = rows.at(-1)?.filled ?? 0;
  const counts = el("p", { class: "counts" });
  const paint = (node, i, step, scale) => {
    const [at, symbol] = [trace.at[i], trace.symbols[i]];
    if (at < 0) return;
    const filled = at < step;
    const rgb = shade(scale.share(trace, i));
    node.toggleAttribute("data-filled", filled);
    node.classList.toggle("filled", filled);
    node.classList.toggle("open", !filled);
    node.classList.toggle("now", at === step - 1);
    node.classList.toggle("bad", filled && Array.isArray(example.target)
      && example.target[i] !== symbol);
    node.style.setProperty("--fill", `rgb(${rgb.join(" ")})`);
    node.style.setProperty("--ink", ink(rgb));
    if (example.width) node.firstChild.textContent = filled ? cellText(symbol) : "";
    node.title = filled ? `${symbol.trim() || "space"}: step ${at + 1}, confidence `
      + `${trace.confidence[i] ?? "?"}, entropy ${trace.entropy[i] ?? "?"} nats` : "";
  };
  const show = (step, scale) => {
    nodes.forEach((node, i) => paint(node, i, step, scale));
    const now = rows[Math.min(step, rows.length) - 1];
    const filled = now?.filled ?? 0;
    const nats = trace.entropy.length;
    const bound = nats ? `; bound spent so far ${plain(now?.spent ?? 0)} nats` : "";
    const own = !now ? "Nothing committed yet" : step > rows.length
      ? `Full since step ${rows.length}`
      : `Step ${step} of ${rows.length}: ${now.count} committed`
        + (nats ? `, entropies ${plain(now.sum)} nats` : "");
    counts.textContent = `${own}; ${filled} of ${total} filled${bound}.`;
    box.setAttribute("aria-label", `Canvas of ${row.label}, ${filled} of ${total} filled`);
    return `${row.label}: ${filled} of ${total} filled`;
  };
  const scores = Object.entries(trace.scores).map(([name, value]) => `${name} ${plain(value)}`);
  const node = el("section", { class: "lane", "aria-label": row.label },
    el("h4", {}, rowName(row)),
    el("div", { class: "quiet" }, [...scores, `${trace.nfe} NFE`].join(" · ")), counts, box,
    folded("Answer as text", wholeText(example, trace.symbols)),
    folded("Notes", Object.entries(trace.notes).map(([k, v]) => `${k}: ${v}`).join("\n")));
  return { node, show, steps: rows.length };
};

/** Whether the runs that are asked for scored an example differently. */
const disagree = (example, headline, numbers) =>
  new Set(numbers.map((n) => example.runs[n]?.scores[headline])
    .filter((score) => score !== undefined)).size > 1;

const legendOf = (scale, traces, boards) => {
  const special = traces.flatMap(({ symbols }) => symbols).find((symbol) => SPECIAL.test(symbol));
  return [el("span", {}, scale.low), el("span", { class: "ramp", "aria-hidden": "true" }),
    el("span", {}, scale.high), el("span", {}, "· framed: committed in this step"),
    boards ? el("span", {}, "· grey: given · red corner: wrong") : null,
    special && !boards ? el("span", {}, `· ∎ special token, such as ${special}`) : null];
};
