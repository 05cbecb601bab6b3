// Where the blocks of the picture are. What stands on something is drawn on top of it:
//
//	┌────┐┌────┐┌──────────┐
//	│ vm1 ││ vm2 ││   pool   │   blocks without anything on them are in rows
//	┌────────────┐└──────────┘
//	│   image    │             a block is as wide as what stands on it
//	└────────────┘
//
// A device with several below it stands on its pool, or on the first; the others are lines.
// y grows downwards, as on the screen.

export const cell = { width: 132, height: 30, gap: 6, base: 34, pad: 8 };

// layout returns blocks: devices, and the disks that several devices share.
// aspect is the width of the picture by its height.
export function layout(devices, disks, aspect) {
  const blocks = devices.map((d, i) => ({ name: d.name, kind: d.kind || "inner", device: i, on: [], above: [], children: [] }));
  const shared = new Map();
  disks.forEach((d, i) => {
    if (d.users < 2) return;
    const b = { name: d.name.split("/").pop() || d.name, full: d.name, kind: "file", disk: i, on: [], above: [], children: [] };
    shared.set(i, b);
    blocks.push(b);
  });
  devices.forEach((d, i) => {
    const b = blocks[i];
    b.on = [...(d.on || []).map(k => blocks[k]), ...(d.disks || []).map(k => shared.get(k)).filter(Boolean)];
    for (const low of b.on) low.above.push(b);
    b.parent = b.on.find(low => devices[low.device]?.kind === "pool") || b.on[0] || null;
    b.parent?.children.push(b);
  });
  blocks.forEach((b, i) => { b.index = i; });
  place(blocks.filter(b => !b.parent), aspect);
  return blocks;
}

const byName = (a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0;

// columnsFor is how many cells are in a row, for a pleasant shape.
const columnsFor = (n, aspect) => n <= Math.min(5, 3 * aspect) ? n : Math.ceil(Math.sqrt(n * 1.3 * aspect * (cell.height + cell.gap) / (cell.width + cell.gap)));

// measure returns the size of a block with all that stands on it.
function measure(b, aspect) {
  const leaves = b.children.filter(c => !c.children.length).sort(byName);
  const inner = b.children.filter(c => c.children.length).sort(byName);
  const columns = columnsFor(leaves.length, aspect), rows = columns ? Math.ceil(leaves.length / columns) : 0;
  const grid = { leaves, columns, width: columns * (cell.width + cell.gap) - cell.gap, height: rows * (cell.height + cell.gap) };
  const parts = inner.map(c => measure(c, aspect));
  let width = parts.reduce((n, p) => n + p.width + cell.gap, 0) + (leaves.length ? grid.width + cell.gap : 0) - cell.gap;
  const height = Math.max(0, grid.height, ...parts.map(p => p.height + cell.gap));
  width = Math.max(cell.width, width);
  return { b, grid, parts, width, height: height + cell.base };
}

// put gives blocks their places: x is the left, y the bottom.
function put(m, x, y) {
  Object.assign(m.b, { x, y: y - cell.base, width: m.width, height: cell.base });
  const floor = y - cell.base - cell.gap;
  let left = x;
  for (const p of m.parts) {
    put(p, left, floor);
    left += p.width + cell.gap;
  }
  putGrid(m.grid, left, floor);
}

function putGrid(grid, x, floor) {
  grid.leaves.forEach((b, i) => {
    const row = Math.floor(i / grid.columns), column = i % grid.columns;
    Object.assign(b, { x: x + column * (cell.width + cell.gap), y: floor - row * (cell.height + cell.gap) - cell.height, width: cell.width, height: cell.height });
  });
}

// place puts everything that stands on nothing on shelves.
function place(roots, aspect) {
  const alone = roots.filter(b => !b.children.length).sort(byName);
  const groups = roots.filter(b => b.children.length).sort(byName).map(b => measure(b, aspect));
  const columns = columnsFor(alone.length, aspect);
  const single = { width: columns * (cell.width + cell.gap) - cell.gap, height: alone.length ? Math.ceil(alone.length / columns) * (cell.height + cell.gap) : 0 };
  const area = groups.reduce((n, g) => n + g.width * g.height, single.width * single.height);
  const most = Math.max(560 * aspect, Math.sqrt(area * 1.4 * aspect), ...groups.map(g => g.width));
  const space = cell.gap * 5;
  let x = 0, y = 0, tall = 0;
  const shelf = (width, height) => {
    if (x > 0 && x + width > most) { y -= tall + space; x = 0; tall = 0; }
    const left = x;
    x += width + space;
    tall = Math.max(tall, height);
    return left;
  };
  for (const g of groups.sort((a, b) => b.height - a.height)) put(g, shelf(g.width, g.height), y);
  if (alone.length) putGrid({ leaves: alone, columns }, shelf(single.width, single.height), y);
}

// reach is everything above or below a block.
export function reach(b, direction) {
  const seen = new Set(), next = [...b[direction]];
  while (next.length) {
    const one = next.pop();
    if (seen.has(one)) continue;
    seen.add(one);
    next.push(...one[direction]);
  }
  return seen;
}
