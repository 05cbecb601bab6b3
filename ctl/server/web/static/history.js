// What has happened while the page was open: differences between states. The daemon keeps
// no history.

const most = 150; // states
const operations = ["read", "write"];

export class History {
  constructor() { this.clear(); }

  clear() { this.last = null; this.counted = null; this.times = []; this.devices = new Map(); this.pools = new Map(); }

  // add takes the next state. A daemon that began anew counts from 0: so does the page.
  add(state) {
    if (this.last && state.time < this.last.time) this.clear();
    const before = this.last && this.counted, now = counters(state);
    if (before && state.time > this.last.time) {
      const seconds = state.time - this.last.time;
      this.times.push(seconds);
      for (const [name, counts] of now) this.note(name, counts, before.get(name), seconds);
      if (this.times.length > most) this.trim();
    }
    for (const name of this.devices.keys()) if (!now.has(name)) this.devices.delete(name);
    this.notePools(state);
    this.last = state;
    this.counted = now;
  }

  note(name, now, before, seconds) {
    if (!before) return;
    let h = this.devices.get(name);
    const moved = now.some((n, i) => n !== before[i]);
    if (!h && !moved) return; // most devices of many are idle
    if (!h) this.devices.set(name, h = { columns: new Array(this.times.length - 1).fill(null) });
    h.columns.push(moved ? now.map((n, i) => Math.max(0, n - before[i]) / (i < 2 ? seconds : 1)) : null);
  }

  trim() {
    this.times.shift();
    for (const h of this.devices.values()) h.columns.shift();
  }

  // columns are the differences of a device, or of several together: for each state null, or
  // bytes read and written in a second, and how many I/Os took how long, by bucket.
  columns(names) {
    const sum = new Array(this.times.length).fill(null);
    for (const name of names) {
      this.devices.get(name)?.columns.forEach((c, i) => {
        if (c) sum[i] = sum[i] ? sum[i].map((n, k) => n + c[k]) : c;
      });
    }
    return sum;
  }

  // rate is how many I/Os a device does in a second, over the last states.
  rate(name) {
    const columns = this.devices.get(name)?.columns.slice(-3) || [];
    const time = this.times.slice(-3).reduce((a, b) => a + b, 0);
    return time ? columns.reduce((n, c) => n + (c ? c.slice(2).reduce((a, b) => a + b, 0) : 0), 0) / time : 0;
  }

  notePools(state) {
    state.devices.forEach((d, i) => {
      const used = state.numbers["udm_pool_data_used_bytes"]?.[i];
      if (used === null || used === undefined) return;
      const points = this.pools.get(d.name) || [];
      points.push({ time: state.time, data: used, metadata: state.numbers["udm_pool_metadata_used_bytes"][i] });
      if (points.length > most) points.shift();
      this.pools.set(d.name, points);
    });
  }

  // forecast is in how many seconds a part of a pool is full if it goes on as in what was
  // seen; undefined without enough of that, Infinity if it does not grow.
  forecast(name, part, total) {
    const points = this.pools.get(name) || [];
    const first = points[0], last = points[points.length - 1];
    if (!first || last.time - first.time < 60) return undefined;
    const grown = (last[part] - first[part]) / (last.time - first.time);
    return grown > 0 ? (total - last[part]) / grown : Infinity;
  }

  seen() { return this.times.reduce((a, b) => a + b, 0); }
}

// counters are, for each device with I/O: bytes read, bytes written, and the buckets.
function counters(state) {
  const all = new Map(), buckets = state.bounds.length + 1;
  const of = (metric, operation) => state.numbers[`${metric}{${operation}}`];
  const moved = operations.map(o => of("udm_device_bytes_total", o));
  const took = operations.map(o => of("udm_device_io_seconds", o));
  state.devices.forEach((d, i) => {
    const counts = moved.map(m => m?.[i] || 0);
    for (let b = 0; b < buckets; b++) counts.push(took.reduce((n, t) => n + (t?.[i]?.[b + 2] || 0), 0));
    all.set(d.name, counts);
  });
  return all;
}
