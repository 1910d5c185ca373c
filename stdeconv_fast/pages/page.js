// Puts the page together.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const say = (number) => number.toLocaleString("en");
const state = { layer: "dominant", section: -1 };

function tellLead() {
  const sections = data.maps.sections.length > 1 ? `, ${say(data.maps.sections.length)} sections` : "";
  byId("lead").textContent =
    `${say(data.n_spots)} spots, ${say(data.types.length)} cell types${sections}; stdeconv_fast ${data.version}`;
  const list = data.notes.filter(Boolean).map((note) => element("li", {}, note));
  byId("warnings").append(list.length ? element("ul", {}, ...list) : element("p", {}, "The run gave no warning."));
}

function tellChecks() {
  byId("checks").append(plainTable(["What", "Found", "Remark"], data.checks.map(([a, b, c]) => [a, b, c || "fine"])));
  if (data.fit.length) byId("fit").append(plainTable(["Measure", "Value", "Meaning"], data.fit));
  else byId("fit").append(element("p", {}, "Fit is not measured with these settings."));
  const genes = data.genes;
  if (genes.name && genes.name.length) {
    const rows = genes.name.map((name, i) => [name, sayValue(genes.unexplained[i]), sayValue(genes.dispersion[i])]);
    const words = "Genes that are explained worst where spots fit worst: log2 of observed over expected counts there, " +
      "against the other spots. Many high ones hint at a type that the reference lacks.";
    byId("fit").append(element("h3", {}, "Genes in excess"), element("p", { class: "hint" }, words),
      element("div", { class: "scroll short", tabindex: "0" }, plainTable(["Gene", "log2 excess", "Dispersion"], rows, [1, 2])));
  }
}

function tellTuning() {
  const { lambda_spatial: strength, phi, tuned } = data.smoothing, place = byId("tuning"), tried = data.tuning;
  const how = tuned ? "chosen from the counts" : "as set";
  const words = strength ? `lambda_spatial ${sayValue(strength)} counts, phi ${sayValue(phi)}, ${how}.` : `None, ${how}.`;
  place.append(element("p", {}, words));
  if (!tried.score) return;
  const rows = tried.score.map((score, i) => (
    { graph: tried.graph[i], lambda: tried.lambda_spatial[i], phi: tried.phi[i], score }
  ));
  const curveOf = (part, key, chosen, title) => {
    const seen = new Map(part.map((row) => [row[key], row])), order = [...seen.keys()].sort((a, b) => a - b);
    const points = order.map((x) => ({ x, y: seen.get(x).score, chosen: x === chosen }));
    if (points.length > 1) place.append(element("h3", {}, title), curve(points, key));
  };
  const first = rows.filter((row) => row.phi === 1 && row.graph === "place");
  const second = rows.filter((row) => !first.includes(row) && row.lambda === tried.chosen.lambda_spatial);
  curveOf(first, "lambda", tried.chosen.lambda_spatial, "Strength of the smoothing");
  curveOf(second, "phi", tried.chosen.phi, "phi");
  place.append(element("p", { class: "hint" }, "Held-out log-likelihood a count, less that of the best; the ring is what was taken."));
  const all = rows.map((row) => [row.graph, sayValue(row.lambda), sayValue(row.phi), row.score.toPrecision(8)]);
  place.append(element("details", {}, element("summary", {}, `All ${rows.length} values tried`),
    plainTable(["Graph", "lambda", "phi", "Score"], all, [1, 2, 3])));
}

function tellTime() {
  const { total, ...stages } = data.seconds, longest = Math.max(...Object.values(stages), 1e-9), place = byId("time");
  const memory = data.memory_gb ? `${data.memory_gb.toFixed(2)} GB at the peak of the process, input included` : "memory not recorded";
  place.append(element("p", {}, `${total === undefined ? "Time not recorded" : `${total.toFixed(1)} s on ${data.device}`}; ${memory}.`));
  const rows = Object.entries(stages).map(([name, seconds]) => {
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * seconds) / longest}%`;
    return [name, seconds.toFixed(2), bar];
  });
  if (rows.length) place.append(plainTable(["Stage", "Seconds", ""], rows, [1]));
  place.append(element("p", { class: "hint" }, "Of the run itself: reading the reference and writing the file come on top. The first run compiles."));
}

function tellSettings() {
  const tables = [["Settings", data.settings], ["Call", data.call], ["Versions", data.versions], ["Fingerprints of the input", data.inputs]];
  for (const [title, values] of tables) {
    const rows = Object.entries(values).map(([name, value]) => [name, sayValue(value)]);
    if (rows.length) byId("settings").append(element("div", {}, element("h3", {}, title), plainTable(["Name", "Value"], rows)));
  }
}

// -- maps ------------------------------------------------------------------------------------------------------------

const palette = new Map(); // type to colour, as many as can be told apart
function chooseColours() {
  const often = new Map(data.table[0].map((row, k) => [k, row.dominant]));
  const most = [...often.keys()].sort((a, b) => often.get(b) - often.get(a) || a - b).slice(0, data.colours.many.length);
  const colours = data.types.length <= data.colours.few.length ? data.colours.few : data.colours.many;
  most.sort((a, b) => a - b).forEach((k, i) => palette.set(k, colours[i]));
}
const REST = "#7f7f7f";
const inkOf = (k) => (palette.get(k) === "#000000" && dark.matches ? "#ffffff" : palette.get(k) ?? REST);

function scalePixels() {
  const bytes = Uint8Array.from(atob(data.colours.scale), (sign) => sign.charCodeAt(0));
  return Uint32Array.from({ length: 256 }, (_, i) => toPixel(...bytes.subarray(3 * i, 3 * i + 3)));
}

async function startMaps() {
  const maps = await readMaps(data.maps), scale = scalePixels(), shown = new Map();
  const onHover = (i) => { byId("hover").textContent = i < 0 ? "" : tellDot(maps, shown, i); };
  const drawings = maps.sections.filter((s) => s.stop > s.start).map((section) => new SectionMap(maps, section, onHover));
  drawings.forEach((drawing) => byId("maps").append(drawing.figure));
  const visible = () => drawings.filter((drawing) => !drawing.figure.hidden);
  const table = new TypeTable(data.columns, byId("types"), (name) => show(`type ${data.types.indexOf(name)}`));
  table.show(data.table[0]);

  async function show(layer) {
    state.layer = byId("layer").value = layer;
    const asked = JSON.stringify(state), { words, pixels, values } = await paint(maps, scale, layer);
    if (asked !== JSON.stringify(state)) return; // another was asked for meanwhile
    shown.set("values", values);
    byId("key").replaceChildren(...tellKey(maps, scale, layer));
    for (const drawing of drawings) { // all of them before any is drawn: the others' room hangs on it
      drawing.figure.hidden = state.section >= 0 && state.section !== maps.sections.indexOf(drawing.section);
    }
    for (const drawing of visible()) {
      drawing.draw(pixels, `Map of ${words}${drawing.section.name && `, section ${drawing.section.name}`}`);
    }
    byId("same-label").hidden = !layer.startsWith("type");
    table.mark(layer.startsWith("type") ? data.types[Number(layer.slice(5))] : null);
    document.body.dataset.shown = layer;
  }

  const layers = [["dominant", "dominant type"], ...data.types.map((name, k) => [`type ${k}`, name]),
    ...Object.keys(maps.fit).map((name) => [`fit ${name}`, FIT_WORDS[name] ?? name])];
  byId("layer").append(...layers.map(([value, text]) => element("option", { value }, text)));
  byId("layer").addEventListener("change", (event) => show(event.target.value));
  byId("section-label").hidden = maps.sections.length < 2;
  byId("section").append(element("option", { value: "-1" }, "all"),
    ...maps.sections.map(({ name }, i) => element("option", { value: String(i) }, name)));
  byId("section").addEventListener("change", (event) => {
    state.section = Number(event.target.value);
    tellMatches(table.show(data.table[state.section + 1]));
    show(state.layer);
  });
  if (maps.sections.length > 6) byId("section").value = String((state.section = 0));
  if (state.section >= 0) table.show(data.table[state.section + 1]);
  byId("same").addEventListener("change", () => show(state.layer));
  byId("zoom-in").addEventListener("click", () => visible().forEach((drawing) => drawing.zoomTo(1.5 * drawing.zoom)));
  byId("zoom-out").addEventListener("click", () => visible().forEach((drawing) => drawing.zoomTo(drawing.zoom / 1.5)));
  byId("zoom-all").addEventListener("click", () => visible().forEach((drawing) => drawing.zoomTo(1)));
  const tellMatches = (number) => {
    byId("matches").textContent = byId("filter").value ? `${say(number)} of ${say(data.types.length)} types` : "";
  };
  byId("filter").addEventListener("input", (event) => tellMatches(table.filter(event.target.value)));
  if (maps.joined) {
    byId("joined").textContent = `${say(data.n_spots)} spots are more than a page can hold one by one: the maps show the means of ${say(maps.n)} squares. Tables are of all spots.`;
  }
  dark.addEventListener("change", () => show(state.layer));
  let wait = 0;
  const redraw = () => {
    clearTimeout(wait);
    wait = setTimeout(() => visible().forEach((drawing) => drawing.again()), 120);
  };
  window.addEventListener("resize", redraw);
  let wide = byId("maps").clientWidth; // a scroll bar that comes or goes changes it, too
  new ResizeObserver(() => {
    if (byId("maps").clientWidth !== wide) redraw();
    wide = byId("maps").clientWidth;
  }).observe(byId("maps"));
  await show("dominant");
}

const FIT_WORDS = { deviance: "fit: deviance a count", misfit: "fit: misfit (high where a type is missing)" };

// The colour of every dot, and its value as text.
async function paint(maps, scale, layer) {
  const unknown = pixelOf(colourOf("--unknown")), pixels = new Uint32Array(maps.n), { dominant } = maps;
  if (layer === "dominant") {
    const inks = [unknown, ...data.types.map((_, k) => pixelOf(inkOf(k)))];
    for (let i = 0; i < maps.n; i++) pixels[i] = inks[dominant[i]];
    return { words: "the dominant type", pixels, values: () => "" };
  }
  const part = layer.startsWith("type"), what = layer.slice(part ? 5 : 4);
  const bytes = await maps.bytesOf(part ? maps.shares[what] : maps.fit[what].packed);
  const [low, high] = part ? [0, maps.tops[what]] : [maps.fit[what].low, maps.fit[what].high];
  const stretch = part && byId("same").checked ? high / sharedTop(maps) : 1;
  for (let i = 0; i < maps.n; i++) pixels[i] = dominant[i] ? scale[Math.round(bytes[i] * stretch)] : unknown;
  const words = part ? `the proportion of ${data.types[what]}` : FIT_WORDS[what] ?? what;
  const value = (i) => sayValue(Number((low + ((high - low) * bytes[i]) / 255).toPrecision(3)));
  return { words, pixels, values: (i) => `${part ? data.types[what] : what} ${value(i)}` };
}

const sharedTop = (maps) => Math.max(...maps.tops);

function tellDot(maps, shown, i) {
  const name = maps.names ? `${maps.names[i]}: ` : "", best = maps.dominant[i];
  if (!best) return `${name}no estimate`;
  const value = shown.get("values")(i);
  return `${name}${value}${value ? "; " : ""}dominant type ${data.types[best - 1]}`;
}

function tellKey(maps, scale, layer) {
  const swatch = (colour, text) => {
    const dot = element("span", { class: "swatch", "aria-hidden": "true" });
    dot.style.background = colour;
    return element("span", {}, dot, text);
  };
  const known = data.table[0].some((row) => row.mean !== null);
  const unknown = maps.dominant.includes(0) || !known ? [swatch(colourOf("--unknown"), "no estimate")] : [];
  if (layer === "dominant") {
    const named = [...palette.keys()].map((k) => swatch(inkOf(k), data.types[k]));
    const rest = palette.size < data.types.length ? [swatch(REST, "other types")] : [];
    return [...named, ...rest, ...unknown];
  }
  const part = layer.startsWith("type"), what = layer.slice(part ? 5 : 4);
  const top = byId("same").checked ? sharedTop(maps) : maps.tops[what];
  const [low, high] = part ? ["0", sayValue(Number(top.toPrecision(3)))]
    : [maps.fit[what].low, maps.fit[what].high].map((end) => sayValue(Number(end.toPrecision(3))));
  const bar = element("canvas", { width: 256, height: 1, "aria-hidden": "true" });
  const picture = new ImageData(256, 1);
  new Uint32Array(picture.data.buffer).set(scale);
  bar.getContext("2d").putImageData(picture, 0, 0);
  const ends = part ? [low, high] : [`≤ ${low}`, `≥ ${high}`];
  return [element("span", {}, ends[0], bar, ends[1]), part ? "proportion" : "", ...unknown];
}

tellLead();
tellChecks();
tellTuning();
tellTime();
tellSettings();
chooseColours();
startMaps().then(() => { document.body.dataset.ready = "yes"; }, (fault) => {
  byId("fault").hidden = false;
  byId("fault").textContent = `The maps cannot be drawn: ${fault.message}. A browser of 2023 or later is needed.`;
  throw fault;
});
