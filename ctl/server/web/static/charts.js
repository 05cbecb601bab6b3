// Pictures of numbers over time.

import { bytes, seconds } from "./text.js";

const margin = { left: 64, right: 10, top: 12, bottom: 22 };
const fewest = 45, most = 150; // states in a picture

// paper prepares a canvas for its size on the screen.
export function paper(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  c.font = getComputedStyle(canvas).font;
  return { c, width, height };
}

// colours are those of the style sheet.
export function colours() {
  const style = getComputedStyle(document.documentElement);
  return new Proxy({}, { get: (_, name) => style.getPropertyValue(`--${name}`).trim() });
}

function axes(c, width, height, ink, lines) {
  c.textBaseline = "middle";
  c.textAlign = "right";
  for (const { y, text, strong } of lines) {
    c.strokeStyle = ink.line;
    c.globalAlpha = strong ? 1 : 0.6;
    c.beginPath();
    c.moveTo(margin.left, Math.round(y) + 0.5);
    c.lineTo(width - margin.right, Math.round(y) + 0.5);
    c.stroke();
    c.globalAlpha = 1;
    c.fillStyle = ink.muted;
    c.fillText(text, margin.left - 8, y);
  }
}

// shownOf is how many states the picture has room for: it grows with what was seen.
const shownOf = times => Math.min(most, Math.max(fewest, times.length));

// ago writes the ends of the axis of time.
function ago(c, width, height, ink, times) {
  const seen = times.reduce((a, b) => a + b, 0), average = times.length ? seen / times.length : 2;
  c.fillStyle = ink.muted;
  c.textBaseline = "alphabetic";
  c.textAlign = "left";
  c.fillText(`${seconds(average * shownOf(times))} ago`, margin.left, height - 5);
  c.textAlign = "right";
  c.fillText("now", width - margin.right, height - 5);
}

// nice is a round number not below n.
function nice(n) {
  let unit = 1024;
  while (unit < n) unit *= 2;
  return unit;
}

// drawFlow draws what is read upwards and what is written downwards.
export function drawFlow(canvas, cols, times) {
  const { c, width, height } = paper(canvas), ink = colours();
  if (width < 50) return;
  const top = margin.top, bottom = height - margin.bottom, middle = (top + bottom) / 2, half = (bottom - top) / 2;
  const high = nice(Math.max(1, ...cols.map(v => v ? Math.max(v[0], v[1]) : 0)));
  axes(c, width, height, ink, [
    { y: top, text: `${bytes(high)}/s` }, { y: (top + middle) / 2, text: bytes(high / 2) }, { y: middle, text: "0", strong: true },
    { y: (middle + bottom) / 2, text: bytes(high / 2) }, { y: bottom, text: `${bytes(high)}/s` }]);
  const step = (width - margin.left - margin.right) / shownOf(times);
  [[0, -1, ink.read], [1, 1, ink.write]].forEach(([k, direction, colour]) => {
    const from = width - margin.right - cols.length * step;
    const at = i => [from + (i + 0.5) * step, middle + direction * half * (cols[i] ? cols[i][k] / high : 0)];
    if (!cols.length) return;
    c.beginPath();
    c.moveTo(at(0)[0], middle);
    cols.forEach((_, i) => c.lineTo(...at(i)));
    c.lineTo(at(cols.length - 1)[0], middle);
    c.closePath();
    c.fillStyle = colour;
    c.globalAlpha = 0.22;
    c.fill();
    c.globalAlpha = 1;
    c.beginPath();
    cols.forEach((_, i) => c.lineTo(...at(i)));
    c.strokeStyle = colour;
    c.lineWidth = 1.5;
    c.lineJoin = "round";
    c.stroke();
    c.lineWidth = 1;
  });
  ago(c, width, height, ink, times);
  const last = cols[cols.length - 1];
  canvas.setAttribute("aria-label", `Throughput now: ${bytes(last ? last[0] : 0)} read and ${bytes(last ? last[1] : 0)} written in a second`);
}

// drawHeat draws how many I/Os took how long: time to the right, latency upwards.
export function drawHeat(canvas, cols, times, bounds) {
  const { c, width, height } = paper(canvas), ink = colours();
  if (width < 50) return;
  const rows = bounds.length + 1, top = margin.top, bottom = height - margin.bottom;
  const tall = (bottom - top) / rows, step = (width - margin.left - margin.right) / shownOf(times);
  axes(c, width, height, ink, bounds.map((b, i) => ({ y: bottom - (i + 1) * tall, text: i % 2 ? "" : seconds(b) })));
  const scale = Math.log1p(Math.max(1, ...cols.map(v => v ? Math.max(...v.slice(2)) : 0)));
  const from = width - margin.right - cols.length * step;
  cols.forEach((v, i) => {
    for (let r = 0; v && r < rows; r++) {
      if (!v[2 + r]) continue;
      const heat = Math.log1p(v[2 + r]) / scale;
      c.fillStyle = r >= 6 ? ink.hot : ink.heat;
      c.globalAlpha = 0.18 + 0.82 * heat;
      c.fillRect(from + i * step, bottom - (r + 1) * tall + 1, Math.max(1, step - 0.6), tall - 1.5);
    }
  });
  c.globalAlpha = 1;
  ago(c, width, height, ink, times);
  const all = new Array(rows).fill(0);
  for (const v of cols) if (v) for (let r = 0; r < rows; r++) all[r] += v[2 + r];
  canvas.setAttribute("aria-label", all.some(n => n) ? `Latency: half within ${within(all, 0.5, bounds)}, 99 % within ${within(all, 0.99, bounds)}` : "Latency: no I/O yet");
  return all;
}

// within is the bound of the bucket in which a share of all has ended.
export function within(buckets, share, bounds) {
  const total = buckets.reduce((a, b) => a + b, 0);
  let sum = 0;
  for (let i = 0; i < buckets.length; i++) {
    sum += buckets[i];
    if (sum >= total * share) return i < bounds.length ? seconds(bounds[i]) : `more than ${seconds(bounds[i - 1])}`;
  }
  return "";
}

// line draws how a part of a pool has filled, as a small line.
export function drawLine(canvas, points, total) {
  const { c, width, height } = paper(canvas), ink = colours();
  if (points.length < 2 || !total) return;
  const first = points[0].time, span = points[points.length - 1].time - first || 1;
  const low = Math.min(...points.map(p => p.data)), high = Math.max(...points.map(p => p.data)), range = high - low || total;
  c.beginPath();
  for (const p of points) c.lineTo(1 + (width - 2) * (p.time - first) / span, height - 3 - (height - 6) * (p.data - low) / range);
  c.strokeStyle = ink.accent;
  c.lineWidth = 1.5;
  c.stroke();
  canvas.setAttribute("aria-label", `From ${bytes(points[0].data)} to ${bytes(points[points.length - 1].data)} while the page was open`);
}
