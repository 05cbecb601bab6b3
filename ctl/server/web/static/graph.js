// The picture of the devices: drawn, panned, zoomed and walked by keys.

import { paper, colours } from "./charts.js";
import { layout, reach } from "./layout.js";
import { visible } from "./text.js";

const smallest = 0.02, largest = 3;
const readable = 13; // pixels of height, from which on a block has a caption
const slice = 12; // milliseconds that drawing may take at once

export class Graph {
  constructor(canvas, onSelect) {
    Object.assign(this, { canvas, onSelect, blocks: [], selected: null, found: null, view: null, shape: "", looks: () => ({}), note: () => "" });
    new ResizeObserver(() => { if (!this.moved) this.view = null; this.draw(); }).observe(canvas);
    canvas.addEventListener("wheel", e => this.wheel(e), { passive: false });
    canvas.addEventListener("keydown", e => this.key(e));
    this.pointers();
  }

  // prepare returns what set takes: the shape of the devices and, if that is new, the places
  // of their blocks. They change only when something else stands on something else.
  prepare(devices, disks) {
    const aspect = Math.round(2 * Math.min(3, Math.max(0.5, this.canvas.clientWidth / this.canvas.clientHeight))) / 2 || 1;
    const text = JSON.stringify([aspect, devices.map(d => [d.name, d.kind, d.on, d.disks]), disks.map(d => [d.name, d.users > 1])]);
    return { text, blocks: text !== this.shape && layout(devices, disks, aspect) };
  }

  // set takes what prepare has made; looks tells what is to be seen of a block.
  set(shape, looks) {
    this.looks = looks;
    if (shape.blocks) {
      const name = this.selected && (this.selected.full || this.selected.name);
      this.shape = shape.text;
      this.blocks = shape.blocks;
      this.selected = name ? this.blocks.find(b => (b.full || b.name) === name) || null : null;
      if (!this.moved) this.view = null;
      this.light();
    }
    this.draw();
  }

  get bounds() {
    let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const b of this.blocks) {
      left = Math.min(left, b.x);
      top = Math.min(top, b.y);
      right = Math.max(right, b.x + b.width);
      bottom = Math.max(bottom, b.y + b.height);
    }
    return { left, top, right, bottom };
  }

  // fit shows all.
  fit() {
    const { left, top, right, bottom } = this.bounds, space = 20;
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (!this.blocks.length || width < 1) return;
    const zoom = Math.max(smallest, Math.min(1.25, (width - 2 * space) / (right - left), (height - 2 * space) / (bottom - top)));
    this.view = { zoom, x: width / 2 - zoom * (left + right) / 2, y: height / 2 - zoom * (top + bottom) / 2 };
    this.moved = false;
    this.draw();
  }

  zoomBy(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const v = this.view;
    if (!v) return;
    const zoom = Math.min(largest, Math.max(smallest, v.zoom * factor));
    v.x = x - (x - v.x) * zoom / v.zoom;
    v.y = y - (y - v.y) * zoom / v.zoom;
    v.zoom = zoom;
    this.moved = true;
    this.draw();
  }

  wheel(e) {
    if (!e.ctrlKey && document.activeElement !== this.canvas) return; // the page scrolls
    e.preventDefault();
    this.zoomBy(Math.exp(-e.deltaY / 400), e.offsetX, e.offsetY);
  }

  pointers() {
    const at = new Map();
    let before = null, dragged = 0;
    const middle = () => {
      const ps = [...at.values()], n = ps.length;
      const x = ps.reduce((s, p) => s + p.x, 0) / n, y = ps.reduce((s, p) => s + p.y, 0) / n;
      return { x, y, span: n > 1 ? Math.hypot(ps[0].x - ps[1].x, ps[0].y - ps[1].y) : 0 };
    };
    const note = e => { at.set(e.pointerId, { x: e.offsetX, y: e.offsetY }); };
    this.canvas.addEventListener("pointerdown", e => {
      this.canvas.setPointerCapture(e.pointerId);
      note(e);
      before = middle();
      if (at.size === 1) dragged = 0;
    });
    this.canvas.addEventListener("pointermove", e => {
      if (!at.has(e.pointerId) || !this.view) return this.point(e);
      note(e);
      const now = middle();
      dragged += Math.abs(now.x - before.x) + Math.abs(now.y - before.y);
      if (dragged > 4) {
        this.view.x += now.x - before.x;
        this.view.y += now.y - before.y;
        this.moved = true;
        if (now.span && before.span) this.zoomBy(now.span / before.span, now.x, now.y);
        this.draw();
      }
      before = now;
    });
    for (const type of ["pointerup", "pointercancel"]) this.canvas.addEventListener(type, e => {
      const clicked = type === "pointerup" && at.size === 1 && dragged <= 4;
      at.delete(e.pointerId);
      if (at.size) before = middle();
      if (clicked) this.select(this.hit(e.offsetX, e.offsetY));
    });
  }

  point(e) {
    const b = this.hit(e.offsetX, e.offsetY);
    if (b === this.under) return;
    this.under = b;
    this.canvas.title = b ? visible(b.full || b.name) : "";
    this.canvas.classList.toggle("over", Boolean(b));
    this.draw();
  }

  hit(px, py) {
    if (!this.view) return null;
    const x = (px - this.view.x) / this.view.zoom, y = (py - this.view.y) / this.view.zoom;
    return this.blocks.find(b => x >= b.x && x <= b.x + b.width && y >= b.y && y <= b.y + b.height) || null;
  }

  select(b, reveal = false) {
    this.selected = b;
    this.light();
    if (b && reveal) this.reveal(b);
    this.draw();
    this.onSelect(b, this.above?.size || 0);
  }

  light() {
    this.above = this.selected ? reach(this.selected, "above") : null;
    this.below = this.selected ? reach(this.selected, "on") : null;
  }

  // reveal moves the picture so that a block can be read.
  reveal(b) {
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight, v = this.view;
    if (!v) return;
    if (v.zoom < 0.45) {
      v.zoom = 0.8;
      v.x = width / 2 - v.zoom * (b.x + Math.min(b.width, width) / 2);
      v.y = height / 2 - v.zoom * (b.y + b.height / 2);
      this.moved = true;
    }
    const left = v.x + b.x * v.zoom, top = v.y + b.y * v.zoom, right = left + Math.min(b.width * v.zoom, width - 40), bottom = top + b.height * v.zoom;
    const outside = left < 10 || top < 10 || right > width - 10 || bottom > height - 10;
    if (!outside) return;
    v.x += width / 2 - (left + right) / 2;
    v.y += height / 2 - (top + bottom) / 2;
    this.moved = true;
  }

  // search lights up the devices whose name, kind or file has a text.
  search(text) {
    const want = text.trim().toLowerCase();
    this.found = want ? new Set(this.blocks.filter(b => (b.words ||= `${b.full || b.name} ${visible(b.name)} ${b.kind}`.toLowerCase()).includes(want))) : null;
    this.draw();
    return this.found ? [...this.found] : [];
  }

  key(e) {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    if (step) this.walk(...step);
    else if (e.key === "+" || e.key === "=") this.zoomBy(1.3);
    else if (e.key === "-") this.zoomBy(1 / 1.3);
    else if (e.key === "0") this.fit();
    else return;
    e.preventDefault();
  }

  // walk selects the next block in a direction: up to what stands on the selected one, down to
  // what it stands on, sideways to the nearest.
  walk(dx, dy) {
    const s = this.selected;
    if (!s) return this.select([...this.blocks].sort((a, b) => b.y - a.y || a.x - b.x)[0] || null, true);
    const near = (list, ahead) => list.filter(ahead).sort((a, b) => distance(s, a) - distance(s, b))[0];
    let next;
    if (dy > 0) next = s.parent && near(this.blocks, b => b.y > s.y && b.parent === s.parent && Math.abs(b.x - s.x) < 1) || s.parent;
    if (dy < 0) next = near(this.blocks, b => b.y < s.y && b.parent === s.parent && s.parent && Math.abs(b.x - s.x) < 1) || near(s.children, () => true);
    if (dy && !next) next = near(this.blocks, b => (b.y - s.y) * dy > 0 && b.x < s.x + s.width && b.x + b.width > s.x);
    if (dx) next = near(this.blocks, b => (b.x - s.x) * dx > 0 && Math.abs(b.y + b.height - s.y - s.height) < 20) || near(this.blocks, b => (b.x - s.x) * dx > 0 && b.x !== s.x);
    if (next) this.select(next, true);
  }

  draw() {
    cancelAnimationFrame(this.asked);
    this.asked = requestAnimationFrame(() => { this.asked = 0; this.paint(); });
  }

  // paint draws the picture: blocks that are too small to be read as plain boxes, the others in
  // detail, for as long as a slice. What is left of these are plain boxes until later frames.
  paint() {
    if (!this.view) this.fit();
    const { c, width, height } = paper(this.canvas), v = this.view;
    if (!v || !this.blocks.length) return;
    const ink = inks(), large = [];
    for (const b of this.blocks) {
      const x = v.x + b.x * v.zoom, y = v.y + b.y * v.zoom, w = b.width * v.zoom, h = b.height * v.zoom;
      if (x > width || y > height || x + w < 0 || y + h < 0) continue;
      const one = [b, this.looks(b), x, y, w, h, width];
      if (h < readable) this.box(c, ink, ...one);
      else large.push(one);
    }
    const left = this.detail(c, ink, large, 0);
    for (const one of large.slice(left)) this.box(c, ink, ...one);
  }

  // detail draws blocks in detail, from a place in a list on, and then the lines. It returns
  // how far it came.
  detail(c, ink, list, from) {
    const end = performance.now() + slice;
    let i = from;
    for (; i < list.length && (i % 16 || i === from || performance.now() < end); i++) {
      const [, , x, y, w, h] = list[i];
      if (from) c.clearRect(x - 1, y - 1, w + 2, h + 2);
      this.block(c, ink, ...list[i]);
    }
    c.globalAlpha = 1;
    if (i < list.length) this.asked = requestAnimationFrame(() => { this.asked = 0; this.detail(c, ink, list, i); });
    else this.lines(c, ink);
    return i;
  }

  // alpha is how much of a block shines through what the user looks for.
  alpha(b) {
    const lit = b === this.selected || this.above?.has(b);
    return this.found ? (this.found.has(b) ? 1 : 0.14) : this.selected && !lit && !this.below?.has(b) ? 0.28 : 1;
  }

  // box draws a block as a plain box, as cheaply as can be.
  box(c, ink, b, look, x, y, w, h) {
    const me = b === this.selected;
    c.globalAlpha = this.alpha(b) * (me ? 0.9 : this.above?.has(b) ? 0.7 : b === this.under ? 0.6 : 0.42);
    c.fillStyle = look.problem ? ink[look.problem] : ink[b.kind] || ink.disk;
    c.fillRect(x, y, Math.max(1, w), Math.max(1, h));
    if (h > 7) this.level(c, ink, look, x, y, w, h, c.fillStyle, this.alpha(b));
    if (!me || h >= readable) return;
    c.strokeStyle = ink.text;
    c.lineWidth = 2;
    c.strokeRect(x, y, w, h);
    c.lineWidth = 1;
  }

  // block draws a block that can be read.
  block(c, ink, b, look, x, y, w, h, width) {
    const me = b === this.selected, lit = me || this.above?.has(b), alpha = this.alpha(b), colour = ink[b.kind] || ink.disk;
    c.beginPath();
    c.roundRect(x, y, w, h, Math.min(5, h / 5));
    c.fillStyle = colour;
    c.globalAlpha = alpha * (me ? 0.55 : lit ? 0.4 : b === this.under ? 0.32 : 0.18);
    c.fill();
    c.globalAlpha = alpha;
    c.strokeStyle = look.problem ? ink[look.problem] : me || this.below?.has(b) ? ink.text : colour;
    c.lineWidth = look.problem || me ? 2 : 1;
    if (look.dashed) c.setLineDash([4, 3]);
    c.stroke();
    if (look.dashed) c.setLineDash([]);
    c.lineWidth = 1;
    this.level(c, ink, look, x, y, w, h, colour, alpha);
    this.caption(c, ink, b, look, x, y, w, h, width);
  }

  // level draws how full a block is, along its bottom, and how busy, at its right.
  level(c, ink, look, x, y, w, h, colour, alpha) {
    if (look.share !== undefined) {
      c.fillStyle = look.share > 0.9 ? ink.critical : look.share > 0.75 ? ink.warning : colour;
      c.globalAlpha = alpha * 0.75;
      c.fillRect(x + 1, y + h - Math.max(2, h * 0.11), (w - 2) * Math.min(1, look.share), Math.max(1.5, h * 0.1));
    }
    if (look.busy > 0) {
      c.fillStyle = ink.accent;
      c.globalAlpha = alpha * Math.min(1, 0.35 + look.busy);
      c.beginPath();
      c.arc(x + w - Math.min(9, h * 0.3), y + h / 2, Math.min(3.2, h * 0.11), 0, 7);
      c.fill();
    }
    c.globalAlpha = alpha;
  }

  caption(c, ink, b, look, x, y, w, h, width) {
    const size = Math.min(13, Math.max(9, h * 0.43));
    const left = Math.max(x, 0) + Math.min(9, h * 0.3), right = Math.min(x + w, width) - (look.busy > 0 ? 18 : 8);
    if (right - left < 14) return;
    c.font = `${size}px ${ink.face}`;
    c.textAlign = "left";
    c.textBaseline = "middle";
    c.fillStyle = ink.text;
    const name = shorten(b.shown ||= visible(b.name), Math.floor((right - left) / (size * 0.56)));
    c.fillText(name, left, y + h / 2 + 0.5);
    const note = this.note(b), used = name.length * size * 0.56;
    if (note && right - left > used + 40) {
      c.fillStyle = ink.muted;
      c.fillText(shorten(note, Math.floor((right - left - used - 12) / (size * 0.54))), left + used + 12, y + h / 2 + 0.5);
    }
  }

  // lines lead from the selected block to those below it that it does not stand on in the
  // picture.
  lines(c, ink) {
    const v = this.view;
    for (const b of this.selected ? [this.selected, ...(this.above.size < 60 ? this.above : [])] : this.blocks.length < 60 ? this.blocks : []) {
      for (const low of b.on) {
        if (low === b.parent) continue;
        const x1 = v.x + (b.x + b.width / 2) * v.zoom, y1 = v.y + (b.y + b.height) * v.zoom;
        const x2 = v.x + (low.x + low.width / 2) * v.zoom, y2 = v.y + low.y * v.zoom, bend = Math.max(24, Math.abs(y2 - y1) / 2);
        c.beginPath();
        c.moveTo(x1, y1);
        c.bezierCurveTo(x1, y1 + bend, x2, y2 - bend, x2, y2);
        c.strokeStyle = ink.accent;
        c.globalAlpha = this.selected ? 0.9 : 0.35;
        c.stroke();
      }
    }
    c.globalAlpha = 1;
  }
}

const distance = (a, b) => Math.hypot(Math.max(0, Math.abs(a.x + a.width / 2 - b.x - b.width / 2) - b.width / 2), a.y - b.y);

const shorten = (s, most) => s.length <= most ? s : most < 3 ? "" : s.slice(0, most - 1) + "…";

// inks are the colours, read once per picture.
function inks() {
  const from = colours(), all = {};
  for (const name of ["text", "muted", "surface", "accent", "critical", "warning", "disk", "clone", "snapshot", "merging", "pool", "volume", "file", "inner", "face"]) all[name] = from[name];
  return all;
}
