// Maps: what is packed in the page, unpacked when it is first drawn; one canvas a section.

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackWords(text) { // 16 bits each, the low byte first
  const bytes = await unpack(text), words = new Uint16Array(bytes.length / 2);
  for (let i = 0; i < words.length; i++) words[i] = bytes[2 * i] | (bytes[2 * i + 1] << 8);
  return words;
}

function addUp(steps, sections) { // differences along each section to positions
  const places = new Uint16Array(steps.length);
  for (const { start, stop } of sections) {
    let place = 0;
    for (let i = start; i < stop; i++) places[i] = place = (place + steps[i]) & 0xffff;
  }
  return places;
}

async function readMaps(maps) {
  const [dominant, x, y] = await Promise.all([maps.dominant, maps.x, maps.y].map(unpackWords));
  const names = maps.names === null ? null : new TextDecoder().decode(await unpack(maps.names)).split("\n");
  const kept = new Map();
  const bytesOf = (text) => {
    if (!kept.has(text)) kept.set(text, unpack(text));
    return kept.get(text);
  };
  return { ...maps, dominant, names, x: addUp(x, maps.sections), y: addUp(y, maps.sections), bytesOf };
}

const dark = window.matchMedia("(prefers-color-scheme: dark)");

function toPixel(red, green, blue) { // as it lies in the memory of a picture
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

function pixelOf(hex) {
  return toPixel(...[1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
}

function colourOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

class SectionMap {
  constructor(maps, section, onHover) {
    Object.assign(this, { maps, section, onHover, zoom: 1, centre: [0.5, 0.5], pixels: null });
    this.figure = document.createElement("figure");
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.figure.append(this.canvas);
    if (section.name) {
      const caption = document.createElement("figcaption");
      caption.textContent = `${section.name} (${(section.stop - section.start).toLocaleString("en")})`;
      this.figure.append(caption);
    }
    this.listen();
  }

  // Place and scale of the picture: x on the canvas is (x of the dot - left) * scale.
  fit() {
    const { width, height, diameter } = this.section, around = 1.5 * diameter;
    const [wide, high] = [width + around, height + around];
    const cssWidth = Math.max(50, this.figure.clientWidth - 2);
    const limit = Math.max(240, Math.min(0.7 * window.innerHeight, 700));
    const cssHeight = Math.round(Math.min(limit, Math.max(120, (cssWidth * high) / wide)));
    const ratio = window.devicePixelRatio || 1;
    this.canvas.style.height = `${cssHeight}px`;
    this.canvas.width = Math.round(cssWidth * ratio);
    this.canvas.height = Math.round(cssHeight * ratio);
    this.scale = this.zoom * Math.min(this.canvas.width / wide, this.canvas.height / high);
    const middle = [this.centre[0] * width, this.centre[1] * height];
    this.left = middle[0] - this.canvas.width / (2 * this.scale);
    this.top = middle[1] - this.canvas.height / (2 * this.scale);
  }

  // pixels: the colour of every dot, one number each.
  draw(pixels, label) {
    this.pixels = pixels;
    this.label = label ?? this.label;
    this.canvas.setAttribute("aria-label", this.label);
    this.fit();
    const { start, stop, diameter } = this.section, size = diameter * this.scale;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.maps.joined && stop - start <= 10000 && size > 2) this.drawDiscs(context, size);
    else this.drawSquares(context, size);
  }

  drawDiscs(context, size) {
    const { x, y } = this.maps, radius = 0.49 * size, { canvas, left, top, scale, pixels } = this;
    for (let i = this.section.start; i < this.section.stop; i++) {
      const [across, down] = [(x[i] - left) * scale, (y[i] - top) * scale];
      if (across < -size || down < -size || across > canvas.width + size || down > canvas.height + size) continue;
      const pixel = pixels[i];
      context.fillStyle = `rgb(${pixel & 255},${(pixel >> 8) & 255},${(pixel >> 16) & 255})`;
      context.beginPath();
      context.arc(across, down, radius, 0, 2 * Math.PI);
      context.fill();
    }
  }

  drawSquares(context, size) {
    const { x, y } = this.maps, { left, top, scale, pixels } = this, { width, height } = this.canvas;
    const picture = context.createImageData(width, height), memory = new Uint32Array(picture.data.buffer);
    const half = 0.55 * Math.max(size, 1); // no gaps where places are rounded or rows are a little aslant
    for (let i = this.section.start; i < this.section.stop; i++) {
      const [across, down] = [(x[i] - left) * scale, (y[i] - top) * scale];
      const first = Math.max(0, Math.round(across - half)), last = Math.min(width, Math.round(across + half));
      const above = Math.max(0, Math.round(down - half)), below = Math.min(height, Math.round(down + half));
      if (first >= last) continue;
      for (let row = above; row < below; row++) memory.fill(pixels[i], row * width + first, row * width + last);
    }
    context.putImageData(picture, 0, 0);
  }

  again() {
    if (this.pixels) this.draw(this.pixels);
  }

  zoomTo(zoom, at = null) { // at: a place on the canvas that stays where it is
    const { width, height } = this.section, before = this.scale;
    this.zoom = Math.min(64, Math.max(1, zoom));
    if (this.zoom === 1) this.centre = [0.5, 0.5];
    else if (at) {
      const place = [this.left + at[0] / before, this.top + at[1] / before];
      this.fit();
      this.centre[0] += (place[0] - (this.left + at[0] / this.scale)) / Math.max(width, 1);
      this.centre[1] += (place[1] - (this.top + at[1] / this.scale)) / Math.max(height, 1);
    }
    this.again();
  }

  nearest(across, down) { // the dot under a place on the canvas, or -1
    const { x, y } = this.maps, place = [this.left + across / this.scale, this.top + down / this.scale];
    let found = -1, least = (0.75 * this.section.diameter + 3 / this.scale) ** 2;
    for (let i = this.section.start; i < this.section.stop; i++) {
      const distance = (x[i] - place[0]) ** 2 + (y[i] - place[1]) ** 2;
      if (distance < least) [least, found] = [distance, i];
    }
    return found;
  }

  listen() {
    const onCanvas = (event) => {
      const box = this.canvas.getBoundingClientRect(), ratio = this.canvas.width / box.width;
      return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
    };
    let held = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      held = onCanvas(event);
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointerup", () => { held = null; });
    this.canvas.addEventListener("pointermove", (event) => {
      const at = onCanvas(event);
      if (held && this.zoom > 1) {
        this.centre[0] -= (at[0] - held[0]) / this.scale / Math.max(this.section.width, 1);
        this.centre[1] -= (at[1] - held[1]) / this.scale / Math.max(this.section.height, 1);
        held = at;
        this.again();
      } else this.onHover(this.nearest(...at));
    });
    this.canvas.addEventListener("pointerleave", () => this.onHover(-1));
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // else the page could not be scrolled past a map
      event.preventDefault();
      this.zoomTo(this.zoom * (event.deltaY < 0 ? 1.25 : 0.8), onCanvas(event));
    }, { passive: false });
  }
}
