// Elements. All text goes through textContent: nothing is ever parsed as HTML.

export const $ = id => document.getElementById(id);

// h makes an element. A child is a node, a text or nothing.
export function h(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false && value !== null) e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...children.flat(Infinity).filter(c => c !== undefined && c !== null && c !== false));
  return e;
}

// show makes the children of an element those given, and changes only what differs, so that
// focus, selections and scroll positions stay.
export function show(parent, ...children) {
  const now = children.flat(Infinity).filter(Boolean).map(c => typeof c === "string" ? document.createTextNode(c) : c);
  now.forEach((child, i) => {
    const old = parent.childNodes[i];
    if (!old) parent.append(child);
    else if (old.nodeType !== child.nodeType || old.nodeName !== child.nodeName || old.dataset?.key !== child.dataset?.key) old.replaceWith(child);
    else if (old.nodeType === Node.TEXT_NODE) { if (old.data !== child.data) old.data = child.data; }
    else become(old, child);
  });
  while (parent.childNodes.length > now.length) parent.lastChild.remove();
}

function become(old, child) {
  for (const { name } of [...old.attributes]) if (!child.hasAttribute(name) && name !== "open" && name !== "style") old.removeAttribute(name);
  for (const { name, value } of child.attributes) if (name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  if (child.dataset.share !== undefined) old.style.setProperty("--share", child.dataset.share);
  show(old, ...child.childNodes);
}

// bar is a horizontal bar, filled to a share.
export function bar(share, label) {
  const level = share > 0.9 ? "critical" : share > 0.75 ? "warning" : "fine";
  const e = h("span", { class: `bar ${level}`, role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.floor(share * 100), "data-share": share }, h("i"));
  e.style.setProperty("--share", share);
  return e;
}
