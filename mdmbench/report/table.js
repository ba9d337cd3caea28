// Tables that sort.

/** The order of two cells of a column; what has no value comes last either way. */
const compare = (one, other, sign) => {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "string" || typeof other === "string") {
    return sign * String(one).localeCompare(String(other), "en", { numeric: true });
  }
  return sign * (one - other);
};

/** A header that sorts by a click: `sort(column, sign)`. Numbers are sorted from the largest. */
const sorter = (text, column, first, sort, attributes = {}) => {
  const head = el("th", { scope: "col", ...attributes });
  const click = () => {
    const now = head.getAttribute("aria-sort");
    const down = now ? now === "ascending" : first < 0;
    for (const other of head.closest("thead").querySelectorAll("[aria-sort]")) {
      other.removeAttribute("aria-sort");
    }
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    sort(column, down ? -1 : 1);
  };
  head.append(el("button", { type: "button", onclick: click }, text));
  return head;
};

/** A table that scrolls in a box of its own; `note` stands below it. */
const boxed = (name, note, ...parts) => [
  el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name },
    el("table", {}, el("caption", { class: "hidden" }, name), parts)),
  note && el("p", { class: "note" }, note)];

/**
 * columns  {text, words}: words for a column of texts, which is set to the left
 * rows     {cells: [{value, node}], attributes}; the first cell is the row's header
 */
const sortable = (name, columns, rows, note = null) => {
  const body = el("tbody");
  const lines = rows.map(({ cells, attributes }) => ({
    values: cells.map(({ value }) => value),
    node: el("tr", attributes ?? {}, cells.map(({ node }, i) =>
      i ? el("td", { class: columns[i].words && "words" }, node)
        : el("th", { scope: "row" }, node))),
  }));
  body.append(...lines.map(({ node }) => node));
  const sort = (column, sign) => {
    const order = [...lines].sort((a, b) => compare(a.values[column], b.values[column], sign));
    body.append(...order.map(({ node }) => node));
  };
  const heads = columns.map(({ text, words }, i) =>
    sorter(text, i, words || !i ? 1 : -1, sort, { class: words && "words" }));
  return boxed(name, note, el("thead", {}, el("tr", {}, heads)), body);
};

/** A table of words and numbers that are given as texts. */
const texts = (name, columns, rows) =>
  sortable(name, columns.map((text) => ({ text, words: true })), rows.map((row) => ({
    cells: row.map((text) => ({ value: text, node: text })),
  })));

const rowName = (row) =>
  [row.label, row.baseline ? el("span", { class: "tag" }, "baseline") : null];

const LEGEND = "[low, high] is the 95 % interval. Speed-up: the baseline's mean / the row's, on the "
  + "examples both have; seconds only where both were decoded at the same batch size. A row's own "
  + "baseline is the one with its proxy, if there is one.";

/** A group's rows with every number. A "-" is no number and sorts last. */
const results = (group) => {
  const columns = [{ text: "sampler" }, ...group.columns.map((text) => ({ text }))];
  const rows = group.rows.map((row) => ({
    cells: [{ value: row.label, node: rowName(row) }, ...row.cells.map(([text, interval, inside]) => ({
      value: Number.isNaN(parseFloat(text)) ? null : parseFloat(text),
      node: el("span", { class: inside && "noise" },
        inside ? `~${text}` : text, interval && el("span", { class: "interval" }, interval)),
    }))],
  }));
  const noise = group.rows.some((row) => row.cells.some(([, , inside]) => inside))
    ? " ~ and grey: no farther from the baseline than numerics alone move it." : "";
  return sortable(`Results: ${group.title}`, columns, rows, LEGEND + noise);
};

/** Time an example: a bar a row, and its parts. */
const spent = (group) => {
  const parts = ["model", "sampler", "host"];
  const rows = group.rows.filter((row) => row.seconds);
  const largest = Math.max(...rows.map((row) => row.seconds[0]));
  const bars = rows.map(({ seconds: [decode, ...shares] }) => {
    const pieces = shares.map((share, i) =>
      el("span", { class: `k${i}`, vars: { width: `${(100 * share) / largest}%` } }));
    return { decode, node: el("div", { class: "spent", "aria-hidden": "true" }, pieces), pieces,
      shares };
  });
  const stretch = (whole) => {
    for (const { decode, pieces, shares } of bars) {
      pieces.forEach((piece, i) => piece.style.setProperty("width",
        `${(100 * shares[i]) / (whole ? decode : largest)}%`));
    }
  };
  const columns = [{ text: "sampler" }, { text: "decode ms" },
    ...parts.map((text) => ({ text: `${text} ms` })), { text: "share", words: true }];
  const lines = rows.map((row, i) => ({ cells: [
    { value: row.label, node: rowName(row) },
    ...row.seconds.map((value) => ({ value, node: String(Number((1000 * value).toPrecision(3))) })),
    { value: row.seconds[1] / row.seconds[0], node: bars[i].node },
  ] }));
  const key = el("p", { class: "quiet" },
    parts.map((part, i) => [el("span", { class: `swatch k${i}` }), part]));
  return [el("div", { class: "bar" }, checkbox("Stretch every bar to full width", stretch)),
    sortable(`Time an example: ${group.title}`, columns, lines), key];
};

/** What became of the answers, and the score by what is known of the examples. */
const failures = (group) => {
  const columns = [{ text: "sampler" }, ...group.kinds.names.map((text) => ({ text }))];
  const rows = group.rows.map((row, i) => ({ cells: [
    { value: row.label, node: rowName(row) },
    ...group.kinds.rows[i].map((value) => ({ value, node: value.toLocaleString("en") })),
  ] }));
  return [sortable(`Answers by kind: ${group.title}`, columns, rows,
    `Answers by what became of them; they are solved where ${group.headline} is 1.`),
  group.properties.map((property) => scoresBy(group, property))];
};

const scoresBy = (group, { name, values, rows }) => {
  const columns = [{ text: "sampler" }, ...values.map((text) => ({ text: `${name} ${text}` }))];
  const lines = group.rows.map((row, i) => ({ cells: [
    { value: row.label, node: rowName(row) },
    ...rows[i].map((cell) => ({
      value: cell && cell[0],
      node: cell
        ? [(100 * cell[0]).toFixed(1), el("span", { class: "interval" }, `n = ${cell[1]}`)] : "-",
    })),
  ] }));
  return sortable(`Score by ${name}: ${group.title}`, columns, lines,
    `${group.headline} (%) by ${name}, and the number of answers.`);
};
