// Elements. Every text becomes a text node: nothing that a record says is ever markup.

const SVG = "http://www.w3.org/2000/svg";

const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "vars") {
      for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    } else if (name.startsWith("on")) {
      node.addEventListener(name.slice(2), value);
    } else if (value === true) {
      node.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value);
    }
  }
  node.append(...children.flat(Infinity).filter((child) => child || child === 0));
  return node;
};

/** An element: attributes, listeners as `onclick`, custom properties as `vars`, children. */
const el = (name, attributes = {}, ...children) =>
  fill(document.createElement(name), attributes, children);

const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

const select = (name, options, onchange) => {
  const box = el("select", { onchange: () => onchange(box.value) }, options);
  return { box, label: el("label", {}, name, box) };
};

const option = (value, text, attributes = {}) => el("option", { value, ...attributes }, text);

const checkbox = (text, onchange) => {
  const box = el("input", { type: "checkbox", onchange: () => onchange(box.checked) });
  return el("label", { class: "inline" }, box, text);
};

/** Terms and what they stand for. */
const pairs = (list, name = "pairs") =>
  el("dl", { class: name }, list.map(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));

/** Four digits at most, and as few as there are. */
const plain = (value) => String(Number(value.toPrecision(4)));

const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** A header of a table in one line. */
const flat = (text) => text.replaceAll("/\n", "/").replaceAll("\n", " ");

/** A cell of the results in words. "~": not told apart from the baseline's. */
const told = ([text, interval, inside]) =>
  [inside ? `~${text}` : text, interval].filter(Boolean).join(" ");

/** A part of the page under its heading. */
const section = (level, id, heading, ...children) =>
  el("section", { id, "aria-labelledby": `${id}-name` },
    el(`h${level}`, { id: `${id}-name` }, heading), children);
