// The page: asks for the state while it is visible, and shows it.

import { $, h, show } from "./dom.js";
import { Graph } from "./graph.js";
import { History } from "./history.js";
import { drawFlow, drawHeat, drawLine, within } from "./charts.js";
import { bytes, plural, visible } from "./text.js";
import * as panels from "./panels.js";
import { ask } from "./operate.js";

const every = 2000; // milliseconds
let token = "", state = null, whole = null, timer = 0, asking = false, busy = [];
const history = new History(), extra = { lines: null };
const graph = new Graph($("graph"), selected);
window.udm = { get state() { return whole; }, graph, history }; // for tests and the curious: the state that is shown

// The token is behind # in the address that udm web prints. It is kept for this tab only, and
// not in the address, which people copy.
function takeToken() {
  const given = decodeURIComponent(location.hash.slice(1));
  if (/^[A-Z2-7]{20,}$/.test(given)) {
    sessionStorage.setItem("token", given);
    window.history.replaceState(null, "", location.pathname);
  }
  token = sessionStorage.getItem("token") || "";
}

async function call(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` }, cache: "no-store", credentials: "omit" });
  if (answer.ok) return answer.json();
  const e = new Error((await answer.json().catch(() => ({}))).reason || answer.statusText);
  e.status = answer.status;
  throw e;
}

async function look() {
  clearTimeout(timer);
  if (asking || document.hidden || !token) return token ? undefined : trouble("Open the address that udm web prints: it has the token of this daemon.");
  asking = true;
  let pause = every;
  const began = performance.now();
  try {
    const next = tidy(await call("api/state"));
    pause = Math.max(every, 8 * (performance.now() - began)); // a slow daemon is asked less often
    trouble("");
    await render(next);
  } catch (e) {
    if (e.status === 401) { token = ""; sessionStorage.removeItem("token"); }
    trouble(e.status ? visible(e.message) : "The daemon does not answer. What is shown is from before; the page goes on when it answers.");
  }
  asking = false;
  if (token) timer = setTimeout(look, pause);
}

// tidy makes absent lists empty ones.
function tidy(s) {
  for (const name of ["devices", "disks", "problems", "operations", "frontEnds", "limits", "machine", "others"]) s[name] ||= [];
  return s;
}

function trouble(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text;
  document.body.classList.toggle("stale", Boolean(text));
}

// breath lets the browser do what waits, so that nothing that the user does waits long.
const breath = () => new Promise(done => setTimeout(done));

// render shows a state, a part at a time: with thousands of devices all of it at once would be
// felt. What names devices by their places changes at once, the picture first.
async function render(next) {
  await breath();
  history.add(next);
  await breath();
  const shape = graph.prepare(next.devices, next.disks);
  await breath();
  state = next;
  $("page").hidden = false;
  busy = state.devices.map(d => history.rate(d.name));
  const bad = new Map();
  for (const p of state.problems) if (bad.get(p.labels.device) !== "critical") bad.set(p.labels.device, p.severity);
  graph.set(shape, b => looks(b, bad));
  await breath();
  header();
  panels.problems(state);
  detail();
  await breath();
  for (const part of [panels.pools, panels.operations, panels.clients, panels.limits, panels.machine]) part(state, history);
  await breath();
  charts();
  whole = next;
}

function header() {
  const clients = state.frontEnds.flatMap(f => (f.clients || []).filter(c => c.device)).length;
  show($("root"), visible(state.root));
  show($("summary"), `${plural(state.devices.length, "device")} · ${plural(clients, "client")}${state.version.restoring ? ` · restoring ${state.version.restoring.done} of ${state.version.restoring.total}` : ""}`);
  show($("foot"), `udm ${visible(state.version.program)} · each number is one of the metrics' · ${state.operate ? "operations are allowed" : "read-only"}`);
  const kinds = [...new Set(state.devices.map(d => d.kind || "inner"))].sort();
  if (state.disks.some(d => d.users > 1)) kinds.push("file");
  show($("legend"), kinds.map(k => h("li", {}, h("i", { class: k }), { inner: "inner part", file: "image or disk below" }[k] || k)));
  document.title = state.problems.length ? `(${state.problems.length}) udm` : "udm";
}

// looks is what is to be seen of a block.
function looks(b, bad) {
  if (b.device === undefined) return {};
  const d = state.devices[b.device], rate = busy[b.device];
  return { share: panels.share(state, b.device)?.share, busy: rate ? Math.log10(1 + rate) / 5 : 0, problem: bad.get(d.name), dashed: !d.state.startsWith("active") };
}

// note is what is written beside the name of a block.
function note(b) {
  const d = state.devices[b.device];
  return d ? [bytes(state.numbers["udm_device_size_bytes"]?.[b.device] || 0), d.state !== "active" && d.state].filter(Boolean).join(" · ") : "";
}
graph.note = note;

// selected follows the picture.
function selected(block, above) {
  const d = block && state.devices[block.device];
  $("said").textContent = !block ? "Nothing selected" : `${visible(block.full || block.name)}, ${d ? `${d.kind || "inner part"}, ${d.state}` : "disk"}, ${plural(above, "device")} above`;
  extra.lines = null;
  detail();
  charts();
  if (d) lines(d.name);
}

async function lines(name) {
  try {
    const answer = await call(`api/device?name=${encodeURIComponent(name)}`);
    if (graph.selected && state.devices[graph.selected.device]?.name === name) {
      extra.lines = { name, ...answer };
      detail();
    }
  } catch (e) {
    if (e.status !== 404) trouble(visible(e.message)); // it is gone meanwhile
  }
}

const detail = () => state && panels.details(state, history, graph.selected, graph.above?.size || 0, extra);

// shown are the devices whose throughput and latency are drawn: the selected one, those on a
// selected disk, or all that no other device uses.
function shown() {
  const s = graph.selected;
  if (s && s.device !== undefined) return { names: [s.name], of: visible(s.name) };
  if (s) return { names: s.above.map(b => b.name), of: `what stands on ${visible(s.name)}` };
  return { names: graph.blocks.filter(b => b.device !== undefined && !b.above.length).map(b => b.name), of: "devices that no other uses" };
}

function charts() {
  if (!state) return;
  const { names, of } = shown(), columns = history.columns(names);
  for (const p of document.querySelectorAll(".pair .of")) p.textContent = of;
  drawFlow($("flow"), columns, history.times);
  drawHeat($("heat"), columns, history.times, state.bounds);
  const sum = panels.total(columns, state);
  $("heat-key").textContent = sum ? `half ≤ ${within(sum, 0.5, state.bounds)} · 99 % ≤ ${within(sum, 0.99, state.bounds)}` : "no I/O while the page was open";
  for (const canvas of document.querySelectorAll("canvas[data-pool]")) {
    const i = state.devices.findIndex(d => d.name === canvas.dataset.pool);
    drawLine(canvas, history.pools.get(canvas.dataset.pool) || [], state.numbers["udm_pool_data_bytes"]?.[i]);
  }
}

// Search.

const hits = 8;

function search() {
  const found = graph.search($("search").value).filter(b => b.device !== undefined);
  const list = $("found"), rest = found.length - hits;
  show(list, found.slice(0, hits).map((b, i) => h("li", { role: "option", id: `hit-${i}`, "data-select": b.name, "aria-selected": String(i === 0) }, h("i", { class: b.kind }), visible(b.name))),
    graph.found && h("li", { class: "empty" }, found.length ? (rest > 0 ? `${rest.toLocaleString("en")} more are lit up` : "") : "No device has that in its name"));
  list.hidden = !graph.found;
  $("search").setAttribute("aria-expanded", String(!list.hidden));
  return found;
}

function endSearch() {
  $("search").value = "";
  search();
}

const pick = name => {
  const b = graph.blocks.find(b => b.device !== undefined && b.name === name);
  if (b) graph.select(b, true);
};

$("search").addEventListener("input", search);
$("search").addEventListener("keydown", e => {
  if (e.key === "Escape") { endSearch(); $("graph").focus(); e.stopPropagation(); }
  if (e.key === "ArrowDown" || e.key === "ArrowUp") {
    const options = [...$("found").querySelectorAll("[role=option]")], now = options.findIndex(o => o.getAttribute("aria-selected") === "true");
    options.forEach((o, i) => o.setAttribute("aria-selected", String(i === (now + (e.key === "ArrowDown" ? 1 : options.length - 1)) % options.length)));
    e.preventDefault();
  }
  if (e.key === "Enter") {
    const option = $("found").querySelector("[aria-selected=true]");
    if (!option) return;
    const name = option.dataset.select;
    endSearch();
    pick(name);
    $("graph").focus();
  }
});
$("search").addEventListener("blur", () => setTimeout(() => { $("found").hidden = true; $("search").setAttribute("aria-expanded", "false"); }, 150));

// Clicks and keys.

document.addEventListener("click", e => {
  const t = e.target.closest("[data-select], [data-copy], [data-do]");
  if (!t) return;
  if (t.dataset.select !== undefined) { endSearch(); pick(t.dataset.select); }
  if (t.dataset.copy !== undefined) copy(t);
  if (t.dataset.do) {
    const i = state.devices.findIndex(d => d.name === t.dataset.name);
    if (i >= 0) ask(t.dataset.do, state.devices[i], state.numbers["udm_device_size_bytes"][i], operate);
  }
});

async function copy(button) {
  await navigator.clipboard?.writeText(button.dataset.copy);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// operate returns why an operation was refused.
async function operate(what, body) {
  try {
    await call(`api/do/${what}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  } catch (e) {
    return e.message;
  }
  setTimeout(look, 0);
  return "";
}

document.addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, dialog")) return;
  const does = { "/": () => $("search").focus(), t: theme, T: theme, "?": () => $("keys").showModal(), Escape: () => graph.select(null) }[e.key];
  if (!does) return;
  e.preventDefault();
  does();
});
for (const [id, does] of Object.entries({ in: () => graph.zoomBy(1.4), out: () => graph.zoomBy(1 / 1.4), fit: () => graph.fit(), help: () => $("keys").showModal(), theme })) $(id).addEventListener("click", does);

// Colours: as the system has them, or as chosen.

const themes = ["auto", "light", "dark"];

function theme() {
  apply(themes[(themes.indexOf(document.documentElement.dataset.theme || "auto") + 1) % themes.length]);
}

function apply(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
  $("theme").textContent = name[0].toUpperCase() + name.slice(1);
  $("theme").setAttribute("aria-label", `Colours: ${name}`);
  redraw();
}

function redraw() {
  graph.draw();
  charts();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
window.addEventListener("resize", redraw);
document.addEventListener("visibilitychange", look);
window.addEventListener("hashchange", () => { takeToken(); look(); });
apply(themes.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");
takeToken();
look();
