// The parts of the page that are text: problems, details, pools, operations, clients, limits.

import { $, h, show, bar } from "./dom.js";
import { bytes, count, percent, plural, seconds, visible } from "./text.js";
import { within } from "./charts.js";

const most = 40; // entries of a list

// number is a number of the metrics. Its value is the metric's own.
export function number(state, metric, device, write = count) {
  const value = state.numbers[metric]?.[device];
  if (value === null || value === undefined) return null;
  const n = Array.isArray(value) ? value[0] : value;
  return h("data", { value: n, "data-metric": metric, "data-device": state.devices[device].name, title: `${metric} ${n}` }, write(n));
}

// name is a device's name, which selects it.
const name = (device, state) => h("button", { type: "button", class: "name", "data-select": state.devices[device].name }, visible(state.devices[device].name));

const empty = text => h("p", { class: "empty" }, text);

const more = (list, what) => list.length > most && h("p", { class: "empty" }, `and ${plural(list.length - most, what)} more`);

export function problems(state) {
  const list = state.problems;
  const section = $("problems");
  section.classList.toggle("none", !list.length);
  if (!list.length) return show(section, h("p", { class: "calm" }, h("i"), "No problems"));
  show(section,
    h("h2", {}, plural(list.length, "problem")),
    h("ul", {}, list.slice(0, most).map(p => h("li", { class: p.severity, "data-alert": p.alert },
      h("div", {},
        h("h3", {}, h("span", { class: "tag" }, p.severity), " ", visible(p.summary)),
        h("p", {}, visible(p.description)),
        p.detail && h("p", { class: "detail" }, visible(p.detail))),
      h("div", { class: "remedy" },
        h("code", {}, visible(p.command)),
        h("button", { type: "button", "data-copy": p.command, "aria-label": `Copy: ${visible(p.command)}` }, "Copy"),
        place(state, p))))),
    more(list, "problem"));
}

function place(state, p) {
  const there = state.devices.some(d => d.name === p.labels.device);
  return there && h("button", { type: "button", "data-select": p.labels.device }, "Show");
}

// share is how full a device is: a pool's data, a store, a cache.
export function share(state, i) {
  for (const [used, all] of [["udm_pool_data_used_bytes", "udm_pool_data_bytes"], ["udm_store_used_bytes", "udm_store_bytes"], ["udm_cache_used_bytes", "udm_cache_bytes"]]) {
    const total = state.numbers[all]?.[i];
    if (total) return { share: state.numbers[used][i] / total, used, all };
  }
  return null;
}

const term = (what, ...value) => value.some(v => v) && [h("dt", {}, what), h("dd", {}, value)];

// details shows the selected device, or all of them.
export function details(state, history, block, above, extra) {
  const aside = $("details");
  if (!block) return overview(state, history, aside);
  if (block.device === undefined) return disk(state, block, aside, above);
  const i = block.device, d = state.devices[i], full = share(state, i), of = (metric, write) => number(state, metric, i, write);
  const clients = state.frontEnds.flatMap(f => (f.clients || []).filter(c => c.device === d.name).map(c => `${f.name} ${c.address || ""}`));
  const limits = state.limits.filter(l => l.device === d.name);
  show(aside,
    h("p", { class: "kind" }, h("i", { class: d.kind || "inner" }), d.kind || "part of another device", " · ", d.state),
    h("h2", { class: "title" }, visible(d.name)),
    h("dl", {},
      term("Size", of("udm_device_size_bytes", bytes)),
      full && term("Full", bar(full.share, "Full"), " ", of(full.used, bytes), " of ", of(full.all, bytes)),
      of("udm_volume_mapped_bytes") && term("Mapped", of("udm_volume_mapped_bytes", bytes)),
      term("Reads", of("udm_device_io_seconds{read}") || "0", " · ", of("udm_device_bytes_total{read}", bytes) || "0B"),
      term("Writes", of("udm_device_io_seconds{write}") || "0", " · ", of("udm_device_bytes_total{write}", bytes) || "0B"),
      term("Failed", of("udm_device_errors_total{read}"), " reads, ", of("udm_device_errors_total{write}"), " writes"),
      term("In flight", of("udm_device_in_flight"), " and ", of("udm_device_queued"), " waiting"),
      latency(history, d.name, state),
      term("Users", of("udm_device_users"), above ? ` · ${plural(above, "device")} above` : ""),
      term("Maps", (d.maps || []).join(", ")),
      stands(state, d),
      block.above.length > 0 && term("Carries", block.above.slice(0, 8).map(b => [name(b.device, state), " "]).flat(), block.above.length > 8 && `and ${(block.above.length - 8).toLocaleString("en")} more`),
      clients.length > 0 && term("Clients", clients.slice(0, 6).map(c => h("span", { class: "line" }, visible(c)))),
      limits.map(l => term("Limits", limitText(l))).flat(),
      term("Number", d.number)),
    h("div", { class: "lines" }, extra.lines?.name === d.name && [["Table", extra.lines.table], ["Status", extra.lines.status]].map(([what, ls]) =>
      ls.length > 0 && [h("h3", {}, what), h("pre", { tabindex: 0, "aria-label": what }, ls.map(visible).join("\n"))])),
    state.operate && d.kind && actions(d));
}

const stands = (state, d) => {
  const on = (d.on || []).map(k => [name(k, state), " "]).flat(), disks = (d.disks || []).map(k => h("span", { class: "line" }, visible(state.disks[k].name)));
  return (on.length > 0 || disks.length > 0) && term("Stands on", on.slice(0, 24), disks.slice(0, 12));
};

function latency(history, device, state) {
  const sum = total(history.columns([device]), state);
  return sum && term("Latency", `half ≤ ${within(sum, 0.5, state.bounds)}, 99 % ≤ ${within(sum, 0.99, state.bounds)}`);
}

export function total(columns, state) {
  const sum = new Array(state.bounds.length + 1).fill(0);
  for (const c of columns) if (c) sum.forEach((_, i) => { sum[i] += c[2 + i]; });
  return sum.some(n => n) ? sum : null;
}

function actions(d) {
  const button = (what, text, cls) => h("button", { type: "button", "data-do": what, "data-name": d.name, class: cls }, text);
  return h("div", { class: "actions", role: "group", "aria-label": "Operations" },
    d.kind !== "pool" && button("snapshot", "Snapshot…"), (d.kind === "clone" || d.kind === "volume") && button("reset", "Reset…", "grave"), d.kind !== "pool" && button("resize", "Resize…"), button("remove", "Remove…", "grave"));
}

function disk(state, block, aside, above) {
  show(aside,
    h("p", { class: "kind" }, h("i", { class: "file" }), "disk"),
    h("h2", { class: "title" }, visible(block.full)),
    h("dl", {}, term("Above", plural(above, "device")),
      term("Carries", block.above.slice(0, 12).map(b => [name(b.device, state), " "]).flat(), block.above.length > 12 && `and ${(block.above.length - 12).toLocaleString("en")} more`)));
}

// overview is shown while nothing is selected: kinds, and who is busiest.
function overview(state, history, aside) {
  const kinds = new Map();
  for (const d of state.devices) kinds.set(d.kind || "inner", (kinds.get(d.kind || "inner") || 0) + 1);
  const busy = state.devices.map((d, i) => ({ i, rate: history.rate(d.name) })).filter(b => b.rate > 0).sort((a, b) => b.rate - a.rate).slice(0, 8);
  const sum = (metric) => state.numbers[metric]?.reduce((n, v) => n + (v || 0), 0) || 0;
  show(aside,
    h("p", { class: "kind" }, "All devices"),
    h("h2", { class: "title" }, plural(state.devices.length, "device")),
    h("dl", {},
      [...kinds].sort((a, b) => b[1] - a[1]).map(([kind, n]) => term(kind === "inner" ? "Inner parts" : kind[0].toUpperCase() + kind.slice(1), h("i", { class: kind }), ` ${n.toLocaleString("en")}`)),
      term("In flight", sum("udm_device_in_flight").toLocaleString("en")),
      state.others.filter(o => o.name === "udm_host_free_bytes").map(o => {
        const size = state.others.find(p => p.name === "udm_host_size_bytes" && p.labels.directory === o.labels.directory)?.value || 1;
        return term("Host", bar(1 - o.value / size, "File system"), " ", h("data", { value: o.value, "data-metric": o.name, "data-directory": o.labels.directory }, bytes(o.value)), ` of ${bytes(size)} free`, h("span", { class: "line" }, visible(o.labels.directory)));
      })),
    h("h3", {}, "Busiest"),
    busy.length ? h("ol", { class: "busy" }, busy.map(b => h("li", {}, name(b.i, state), h("span", {}, `${count(b.rate)}/s`)))) : empty("No I/O since the page was opened."),
    h("p", { class: "hint" }, "Select a device to see what stands on it."));
}

export function pools(state, history) {
  const list = state.devices.map((d, i) => i).filter(i => state.numbers["udm_pool_mode{rw}"]?.[i] !== null && state.numbers["udm_pool_mode{rw}"]?.[i] !== undefined);
  const section = $("pools");
  section.hidden = !list.length;
  if (!list.length) return;
  show(section, h("h2", {}, "Pools"), h("div", { class: "cards" }, list.slice(0, most).map(i => pool(state, history, i))), more(list, "pool"));
}

const modes = { rw: "in order", ro: "read-only", out_of_data_space: "out of data space", fail: "failed" };

function pool(state, history, i) {
  const of = (metric, write) => number(state, metric, i, write), d = state.devices[i];
  const mode = Object.keys(modes).find(m => state.numbers[`udm_pool_mode{${m}}`][i] === 1) || "fail";
  const part = (what, metric, key) => {
    const used = state.numbers[`${metric}_used_bytes`]?.[i], all = state.numbers[`${metric}_bytes`]?.[i];
    if (!all) return null;
    return h("div", { class: "part" },
      h("div", {}, h("span", {}, what), h("b", {}, percent(used / all))),
      bar(used / all, `${what} of ${visible(d.name)}`),
      h("div", { class: "small" }, h("span", {}, of(`${metric}_used_bytes`, bytes), " of ", of(`${metric}_bytes`, bytes)), h("span", {}, forecast(history.forecast(d.name, key, all), history))));
  };
  const volumes = state.devices.filter(v => v.pool === d.name).length;
  return h("article", { class: `card ${mode}`, "data-key": d.name },
    h("header", {}, name(i, state), h("span", { class: "mode" }, modes[mode])),
    part("Data", "udm_pool_data", "data"), part("Metadata", "udm_pool_metadata", "metadata"),
    h("canvas", { class: "line", role: "img", "data-pool": d.name, "aria-label": "" }),
    h("p", { class: "small" }, h("span", {}, plural(volumes, "volume")), h("span", {}, "transaction ", of("udm_pool_transaction", n => n.toLocaleString("en")))));
}

function forecast(time, history) {
  if (time === undefined) return "";
  if (time === Infinity) return "does not grow";
  return `full in ${seconds(time)} at the rate of the last ${seconds(history.seen())}`;
}

export function operations(state) {
  const list = state.operations || [], section = $("operations");
  section.hidden = !list.length;
  if (!list.length) return;
  show(section, h("h2", {}, "Operations under way"), h("ul", { class: "rows" }, list.slice(0, most).map(o => h("li", {},
    h("b", {}, o.kind), h("span", {}, visible((o.objects || []).slice(0, 3).join(", ")) + (o.objects?.length > 3 ? ` and ${o.objects.length - 3} more` : "")),
    o.total ? [bar(o.done / o.total, `Progress of ${o.kind}`), h("span", {}, `${bytes(o.done || 0)} of ${bytes(o.total)}`)] : h("span", {}, `step ${o.steps} of ${o.all}`),
    o.problem && h("span", { class: "problem" }, visible(o.problem))))), more(list, "operation"));
}

export function clients(state) {
  show($("clients"), h("h2", {}, "Clients"), h("ul", { class: "fronts" }, state.frontEnds.map(f => {
    const list = f.clients || [], sample = metric => state.others.find(o => o.name === metric && o.labels.front_end === f.name);
    const n = sample("udm_front_end_clients")?.value ?? list.length;
    return h("li", {},
      h("div", {}, h("b", {}, f.name), h("span", { class: "small" }, visible((f.addresses || []).slice(0, 2).join(" "))), h("span", { class: "n" }, h("data", { value: n, "data-metric": "udm_front_end_clients", "data-front-end": f.name }, plural(n, "client")))),
      list.some(c => c.device) && h("ul", {}, list.filter(c => c.device).slice(0, 8).map(c => h("li", {}, h("span", {}, visible(c.device)), h("span", { class: "small" }, visible(c.address || ""), c.readOnly ? " read-only" : "")))));
  })));
}

const rateText = (what, r) => [r.iops && `${count(r.iops)} ${what}s/s`, r.bytes && `${bytes(r.bytes)}/s ${what === "read" ? "read" : "written"}`].filter(Boolean).join(", ");

const limitText = l => [rateText("read", l.read || {}), rateText("write", l.write || {}), l.device && l.group && `in group ${visible(l.group)}`].filter(Boolean).join(", ");

export function limits(state) {
  const list = state.limits;
  show($("limits"), h("h2", {}, "Limits"), list.length
    ? [h("ul", { class: "rows" }, list.slice(0, most).map(l => h("li", {}, h("b", {}, visible(l.device || `group ${l.group}`)), h("span", {}, limitText(l) || "none of its own")))), more(list, "limit")].filter(Boolean)
    : empty("No limits: udm limit sets some."));
}

export function machine(state) {
  const list = state.machine || [], section = $("machine");
  section.hidden = !list.length;
  if (!list.length) return;
  show(section, h("details", {}, h("summary", {}, h("h2", {}, "This machine lacks"), h("span", {}, list.map(c => c.name).join(", "))),
    h("ul", { class: "rows" }, list.map(c => h("li", { class: "lack" }, h("b", {}, visible(c.name)), h("span", {}, visible(c.problem)), h("span", { class: "small" }, "without it: ", visible(c.without)), h("code", {}, visible(c.command)))))));
}
