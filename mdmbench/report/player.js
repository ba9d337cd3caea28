// The player: how two runs fill the canvas of one example.

class Player {
  constructor(group, id) {
    this.group = group;
    this.examples = group.traces.examples;
    this.colour = "step";
    this.step = 0;
    this.timer = null;
    this.rate = 5;
    this.runs = this.#firstRuns();
    this.node = this.#build(id);
    this.#choices();
    this.#load(this.examples.find((example) => this.#fits(example)));
  }

  /** The first, and beside it the first that is no baseline; alone where there is no other. */
  #firstRuns() {
    const known = this.group.rows.map((_, n) => n)
      .filter((n) => this.examples.some((example) => example.runs[n]));
    const other = known.find((n) => !this.group.rows[n].baseline && n !== known[0]);
    return [known[0], other ?? known[1]].filter((n) => n !== undefined);
  }

  #fits(example) {
    return this.runs.every((n) => example.runs[n]);
  }

  #build(id) {
    const options = () => this.group.rows.map((row, n) =>
      option(n, row.label, { disabled: !this.examples.some((example) => example.runs[n]) }));
    const pick = (side) => (value) => {
      this.runs[side] = Number(value);
      this.#choices();
      this.#load(this.#fits(this.example) ? this.example
        : this.examples.find((example) => this.#fits(example)));
    };
    const names = this.runs.length > 1 ? ["Left run", "Right run"] : ["Run"];
    this.sides = names.map((name, side) => select(name, options(), pick(side)));
    this.sides.forEach(({ box }, side) => (box.value = this.runs[side]));
    this.which = select("Example", [], (value) => this.#load(this.examples[value]));
    const colours = select("Colour", Object.keys(COLOURS).map((name) => option(name, name)), (name) => {
      this.colour = name;
      this.#scale();
    });
    this.colours = colours.box;
    const speeds = select("Speed", [1, 2, 5, 10, 25].map((n) => option(n, `${n} steps a second`,
      { selected: n === this.rate })), (value) => this.#speed(Number(value)));
    this.lanes = el("div", { class: "lanes" });
    this.scale = el("p", { class: "scale" });
    this.more = el("div");
    this.said = el("p", { class: "hidden", "aria-live": "polite" });
    return el("div", { class: "player", role: "group", tabindex: 0, "aria-label": "Trace player",
      "aria-describedby": `${id}-keys`, onkeydown: (event) => this.#key(event) },
    el("div", { class: "bar" }, [...this.sides, this.which, colours, speeds].map((s) => s.label)),
    this.#track(), this.said,
    el("p", { class: "quiet keys", id: `${id}-keys` },
      "Space plays and pauses, the arrow keys step, Home and End go to the ends."),
    this.lanes, this.scale, this.more);
  }

  #track() {
    const button = (text, name, act) =>
      el("button", { type: "button", "aria-label": name, title: name, onclick: act }, text);
    this.button = button("Play", "Play", () => this.toggle());
    this.button.classList.add("play");
    this.slider = el("input", { type: "range", min: 0, max: 1, value: 0, "aria-label": "Step",
      oninput: () => this.go(Number(this.slider.value)) });
    this.place = el("output");
    return el("div", { class: "track" }, this.button,
      button("−1", "One step back", () => this.go(this.step - 1)),
      button("+1", "One step forward", () => this.go(this.step + 1)), this.slider, this.place);
  }

  /** Only what both runs have can be chosen; first that on which any two runs disagree. */
  #choices() {
    const all = this.group.rows.map((_, n) => n);
    const fitting = this.examples.map((example, i) => ({ example, i }))
      .filter(({ example }) => this.#fits(example));
    const part = (text, wanted) => {
      const list = fitting.filter(({ example }) =>
        disagree(example, this.group.headline, all) === wanted);
      return list.length
        ? el("optgroup", { label: text }, list.map(({ example, i }) => option(i, example.id))) : null;
    };
    this.which.box.replaceChildren(...[part("Runs disagree", true), part("Runs agree", false)]
      .filter(Boolean));
  }

  /** Shows an example, if the runs have it. */
  open(id) {
    const example = this.examples.find((one) => one.id === id && this.#fits(one));
    if (!example) return;
    this.#load(example);
    this.node.scrollIntoView({ block: "start" });
    this.node.focus({ preventScroll: true });
  }

  #load(example) {
    this.pause();
    this.example = example;
    this.step = 0;
    if (!example) {
      this.lanes.replaceChildren(el("p", {}, "These two runs have no example in common here."));
      this.shown = [];
      this.last = 0;
      this.scale.replaceChildren();
      this.more.replaceChildren();
      this.go(0);
      return;
    }
    this.which.box.value = this.examples.indexOf(example);
    this.traces = this.runs.map((n) => example.runs[n]);
    this.shown = this.runs.map((n, side) =>
      lane(this.group.rows[n], example, this.traces[side]));
    this.lanes.replaceChildren(...this.shown.map(({ node }) => node));
    this.last = Math.max(...this.shown.map(({ steps }) => steps));
    this.slider.max = this.last;
    const target = Array.isArray(example.target)
      ? wholeText(example, example.target) : example.target;
    this.more.replaceChildren(...[folded("Prompt", example.prompt), folded("Target", target)]
      .filter(Boolean));
    for (const box of this.colours.options) {
      box.disabled = box.value !== "step" && !this.traces.every((t) => t[box.value].length);
    }
    if (this.colours.selectedOptions[0].disabled) this.colour = this.colours.value = "step";
    this.#scale();
  }

  #scale() {
    this.paint = COLOURS[this.colour](this.traces);
    this.scale.replaceChildren(
      ...legendOf(this.paint, this.traces, this.example.width > 0).filter(Boolean));
    this.go(this.step);
  }

  go(step) {
    this.step = Math.min(Math.max(step, 0), this.last);
    this.slider.value = this.step;
    this.slider.setAttribute("aria-valuetext", `step ${this.step} of ${this.last}`);
    this.place.textContent = `Step ${this.step} of ${this.last}`;
    const told = this.shown.map(({ show }) => show(this.step, this.paint));
    // While it plays, a reader would never come to the end of a sentence.
    if (!this.timer) this.said.textContent = `Step ${this.step}. ${told.join("; ")}.`;
    if (this.step === this.last) this.pause();
  }

  toggle() {
    if (this.timer) {
      this.pause();
      return;
    }
    if (this.step === this.last) this.go(0);
    this.timer = setInterval(() => this.go(this.step + 1), 1000 / this.rate);
    this.#name("Pause");
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.#name("Play");
  }

  #name(text) {
    this.button.textContent = text;
    this.button.setAttribute("aria-label", text);
    this.button.title = text;
  }

  #speed(rate) {
    this.rate = rate;
    if (this.timer) {
      this.pause();
      this.toggle();
    }
  }

  #key(event) {
    const { target, key } = event;
    if (event.altKey || event.ctrlKey || event.metaKey || target.matches("select")) return;
    if (key === " " && !target.matches("button, summary")) {
      this.toggle();
    } else if (key.startsWith("Arrow") && !target.matches("input, .stream")
      && ["ArrowLeft", "ArrowRight"].includes(key)) {
      this.go(this.step + (key === "ArrowRight" ? 1 : -1));
    } else if (["Home", "End"].includes(key) && !target.matches("input")) {
      this.go(key === "Home" ? 0 : this.last);
    } else {
      return;
    }
    event.preventDefault();
  }
}
