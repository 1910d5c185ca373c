// Elements, tables and curves. Text goes in as text, never as html: names of types are not to be trusted.

function element(tag, looks = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(looks)) {
    if (name === "class") made.className = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const SHOWN = {
  text: (value) => value,
  percent: (value) => (value === null ? "" : `${(100 * value).toFixed(value > 0 && value < 0.1 ? 2 : 1)} %`),
  count: (value) => (value === null ? "" : value.toLocaleString("en")),
};

// A table that sorts by a click on a heading. choose(name) is called for the row that is clicked.
class TypeTable {
  constructor(columns, place, choose) {
    Object.assign(this, { columns, choose, by: columns[1], down: true, chosen: null, words: [] });
    this.heads = columns.map((column) => {
      const button = element("button", { type: "button", title: column.meaning }, column.title);
      button.addEventListener("click", () => {
        this.down = this.by === column ? !this.down : column.kind !== "text";
        this.by = column;
        this.fill();
      });
      return element("th", { scope: "col", class: column.kind === "text" ? "" : "number" }, button);
    });
    this.body = element("tbody");
    const head = element("thead", {}, element("tr", {}, ...this.heads));
    place.append(element("table", {}, head, this.body));
  }

  show(rows) {
    this.rows = rows;
    return this.fill();
  }

  filter(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return this.fill();
  }

  mark(name) {
    this.chosen = name;
    for (const row of this.body.rows) {
      row.classList.toggle("chosen", row.dataset.name === name);
      row.querySelector("button").setAttribute("aria-pressed", String(row.dataset.name === name));
    }
  }

  fill() {
    const { key, kind } = this.by, sign = this.down ? -1 : 1;
    const order = (a, b) => {
      if (kind === "text") return sign * a[key].localeCompare(b[key], "en", { numeric: true });
      if (a[key] === null || b[key] === null) return (a[key] === null) - (b[key] === null);
      return sign * (a[key] - b[key]) || a.name.localeCompare(b.name, "en", { numeric: true });
    };
    this.columns.forEach((column, i) => {
      const way = column === this.by ? (this.down ? "descending" : "ascending") : "none";
      this.heads[i].setAttribute("aria-sort", way);
    });
    const shown = this.rows.filter((row) => this.words.every((word) => row.name.toLowerCase().includes(word)));
    this.body.replaceChildren(...shown.sort(order).map((row) => this.makeRow(row)));
    this.mark(this.chosen);
    return shown.length;
  }

  makeRow(row) {
    const cells = this.columns.map(({ key, kind }) => {
      if (key === "name") return element("th", { scope: "row" }, element("button", { type: "button" }, row.name));
      return element("td", { class: "number" }, SHOWN[kind](row[key]));
    });
    const made = element("tr", {}, ...cells);
    made.dataset.name = row.name;
    made.addEventListener("click", () => this.choose(row.name));
    return made;
  }
}

function plainTable(heads, rows, numbers = []) {
  const kind = (i) => (numbers.includes(i) ? { class: "number" } : {});
  const head = element("tr", {}, ...heads.map((text, i) => element("th", { scope: "col", ...kind(i) }, text)));
  const body = rows.map((row) => element("tr", {}, ...row.map((value, i) => (
    i === 0 ? element("th", { scope: "row" }, value) : element("td", kind(i), value)
  ))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

function sayValue(value) {
  if (value === null || value === undefined) return "not given";
  if (Array.isArray(value)) return value.length ? value.join(", ") : "none";
  if (typeof value === "object") return JSON.stringify(value);
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value);
}

function drawn(tag, looks, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(looks)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Scores {x, y} less the best; the one with `chosen` is ringed. Values of x are evenly spaced, as they are a ladder.
function curve(scores, xTitle) {
  const [wide, high, left, right, top, below] = [520, 220, 72, 16, 14, 40], most = Math.max(...scores.map((s) => s.y));
  const points = scores.map((score) => ({ ...score, y: score.y - most }));
  const values = points.map((point) => point.y), low = Math.min(...values), reach = -low || 1;
  const across = (i) => left + ((wide - left - right) * (i + 0.5)) / points.length;
  const down = (y) => high - below - 6 - ((high - below - top - 12) * (y - low)) / reach;
  const chart = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img" });
  const best = points.find((point) => point.chosen);
  chart.append(drawn("title", {}, `score by ${xTitle}${best ? `; chosen: ${sayValue(best.x)}` : ""}`));
  for (const y of low < 0 ? [low, low / 2, 0] : [0]) {
    chart.append(drawn("line", { class: "axis", x1: left, x2: wide - right, y1: down(y), y2: down(y) }));
    chart.append(drawn("text", { x: left - 6, y: down(y) + 4, "text-anchor": "end" }, y ? y.toExponential(1) : "best"));
  }
  const places = points.map((point, i) => `${across(i)},${down(point.y)}`);
  chart.append(drawn("polyline", { class: "curve", points: places.join(" ") }));
  points.forEach((point, i) => {
    const looks = { cx: across(i), cy: down(point.y), r: point.chosen ? 6 : 3.5, class: point.chosen ? "choice" : "point" };
    chart.append(drawn("circle", looks, drawn("title", {}, `${sayValue(point.x)}: ${point.y.toExponential(2)}`)));
    chart.append(drawn("text", { x: across(i), y: high - below + 14, "text-anchor": "middle" }, sayValue(point.x)));
  });
  chart.append(drawn("text", { x: (left + wide - right) / 2, y: high - 6, "text-anchor": "middle" }, xTitle));
  return chart;
}
