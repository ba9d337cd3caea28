// The page, from the document in #data.

const DATA = JSON.parse(document.getElementById("data").textContent);
const PAGE = 25;

const heading = (group) => {
  const [model, task, ...rest] = group.title.split(" · ");
  return { name: model === group.task || model === task ? group.task : `${group.task} · ${model}`,
    rest: rest.join(" · ") };
};

/** Scores and calls of every example, a page at a time: there may be many thousands. */
const examples = (group, openable, open) => {
  const { ids, scores, nfe, total } = group.examples;
  const values = (column) => {
    if (!column) return ids;
    return column % 2 ? scores[(column - 1) / 2] : nfe[column / 2 - 1];
  };
  let [order, from, sorted, wanted, differing] = [ids.map((_, i) => i), 0, [0, 1], "", false];
  const body = el("tbody");
  const told = el("p", { class: "quiet", role: "status" });
  const number = (value) => el("td", {}, value === null ? "-" : plain(value));
  const line = (i) => el("tr", {},
    el("th", { scope: "row" }, openable.has(ids[i])
      ? el("button", { type: "button", class: "link", title: "Play this example",
        onclick: () => open(ids[i]) }, ids[i]) : ids[i]),
    group.rows.map((_, n) => {
      const score = number(scores[n][i]);
      score.classList.toggle("wrong", scores[n][i] !== null && scores[n][i] < 1);
      return [score, number(nfe[n][i])];
    }));
  const turn = (to) => {
    from = Math.max(0, Math.min(to, Math.floor((order.length - 1) / PAGE) * PAGE));
    body.replaceChildren(...order.slice(from, from + PAGE).map(line));
    const range = order.length ? `${from + 1} to ${Math.min(from + PAGE, order.length)}` : "none";
    const cut = ids.length < total ? `; of ${count(total, "example")} the page holds these` : "";
    told.textContent = `${range} of ${count(order.length, "example")}${cut}`;
    back.disabled = from === 0;
    next.disabled = from + PAGE >= order.length;
  };
  const apply = () => {
    const [column, sign] = sorted;
    const list = values(column);
    const splits = (i) => new Set(scores.map((s) => s[i]).filter((v) => v !== null)).size > 1;
    order = ids.map((_, i) => i)
      .filter((i) => ids[i].includes(wanted) && (!differing || splits(i)));
    // Ids come in their order.
    order.sort((a, b) => (column ? compare(list[a], list[b], sign) : sign * (a - b)));
    turn(0);
  };
  const back = el("button", { type: "button", onclick: () => turn(from - PAGE) }, "Back");
  const next = el("button", { type: "button", onclick: () => turn(from + PAGE) }, "Next");
  const search = el("input", { type: "search",
    oninput: () => ((wanted = search.value), apply()) });
  const sort = (column, sign) => ((sorted = [column, sign]), apply());
  const heads = group.rows.flatMap((_, n) => [
    sorter(group.headline, 2 * n + 1, 1, sort), sorter("NFE", 2 * n + 2, -1, sort)]);
  const top = el("thead", {},
    el("tr", {}, el("td"), group.rows.map((row) =>
      el("th", { class: "across", scope: "colgroup", colspan: 2 }, row.label))),
    el("tr", {}, sorter("example", 0, 1, sort), heads));
  apply();
  return [
    el("div", { class: "bar" }, el("label", {}, "Example contains", search),
      group.rows.length > 1 ? checkbox("Only where runs disagree",
        (on) => ((differing = on), apply())) : null, back, next),
    told, boxed(`Examples: ${group.title}`, null, top, body)];
};

const playing = (group, id) => {
  const { examples: known, note } = group.traces;
  const said = note ? el("p", { class: "quiet" }, `What the task says is missing: ${note}`) : null;
  if (!known.length) {
    return { nodes: [said, el("p", { class: "quiet" }, "No example of this group can be played.")] };
  }
  const all = group.rows.map((_, n) => n);
  const differ = known.filter((example) => disagree(example, group.headline, all)).length;
  const player = new Player(group, id);
  const some = `${known.length} of ${count(group.examples.total, "example")} can be played; `
    + (differ ? `the runs disagree on ${differ} of them.` : "the runs agree on all of them.");
  return { player, nodes: [el("p", { class: "quiet" }, some), said, player.node] };
};

const groupSection = (group, g) => {
  const { name, rest } = heading(group);
  const id = `g${g}`;
  const { nodes, player } = playing(group, `${id}-play`);
  const openable = new Set(group.traces.examples.map((example) => example.id));
  const timed = group.rows.some((row) => row.seconds);
  return section(2, id, name,
    el("p", { class: "quiet" }, rest),
    section(3, `${id}-front`, "Score against cost", front(group)),
    section(3, `${id}-results`, "Results", results(group)),
    section(3, `${id}-play`, "One example, step by step", nodes),
    timed ? section(3, `${id}-time`, "Where the time went", spent(group)) : null,
    section(3, `${id}-kinds`, "What became of the answers", failures(group)),
    section(3, `${id}-examples`, "Every example",
      examples(group, openable, (example) => player.open(example))));
};

/** What is the same everywhere, once; and a table of what is not. */
const parted = (name, first, { shared, columns, rows }) => [
  shared.length ? pairs(shared) : null,
  columns.length ? texts(name, [first, ...columns], rows) : null];

const head = () => {
  const runs = DATA.groups.reduce((sum, group) => sum + group.rows.length, 0);
  const empty = DATA.empty ? ` · ${count(DATA.empty, "run")} without records left out` : "";
  document.getElementById("head").append(
    el("p", { class: "over" },
      `mdmbench ${DATA.version} · ${DATA.made} · ${count(runs, "run")}${empty}`),
    el("h1", {}, DATA.title),
    el("nav", { "aria-label": "Groups" }, el("ul", { class: "groups" },
      DATA.groups.map((group, g) => {
        const { name, rest } = heading(group);
        return el("li", {}, el("a", { href: `#g${g}` }, name),
          el("div", { class: "quiet" }, rest), group.words.map((text) => el("p", {}, text)));
      }))));
};

head();
document.getElementById("content").replaceChildren(
  ...DATA.groups.map(groupSection),
  section(2, "settings", "Settings",
    el("p", { class: "quiet" }, "First what all runs share."),
    parted("Settings that differ", "run", DATA.settings)),
  section(2, "environment", "Environment",
    el("p", { class: "quiet" }, DATA.environments.columns.length
      ? "First what all have in common." : "All records were made in the same one."),
    parted("Environments", "runs", DATA.environments)));
document.getElementById("foot").append(
  el("p", {}, "One file, made from the runs' records. It asks no network for anything."));
// When the first picture has been painted.
requestAnimationFrame(() => setTimeout(() => {
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}));
