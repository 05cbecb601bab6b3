// Operations: what they do is said before they are done.

import { $, h, show } from "./dom.js";
import { bytes, visible } from "./text.js";

const questions = {
  snapshot: d => ({ title: "Take a snapshot", yes: "Take it", text: [h("p", {}, "The present contents of ", h("b", {}, visible(d.name)), " are kept under another name."), field("new", "Name", `${d.name}-snap`)] }),
  resize: (d, size) => ({ title: "Make it larger", yes: "Resize", text: [h("p", {}, h("b", {}, visible(d.name)), ` has ${bytes(size)}. It can become larger; udm resize also makes it smaller.`), field("size", "Size", bytes(size))] }),
  reset: d => ({ title: "Reset", yes: "Reset, and lose the changes", grave: true, text: [h("p", {}, "All that was written to ", h("b", {}, visible(d.name)), ` since it was made will be gone. It will be as ${visible(d.base || "its base")} is.`)] }),
  remove: d => ({ title: "Remove", yes: "Remove", grave: true, text: [h("p", {}, h("b", {}, visible(d.name)), " will be gone: ", gone(d), ".")] }),
};

function gone(d) {
  if (d.kind === "pool") return "the pool with its files for data and metadata. It must have no volumes";
  if (d.kind === "volume") return `all data that it does not share with other volumes of ${visible(d.pool)}`;
  if (d.store) return `all that was written to it, with its store ${visible(d.store)}`;
  return "the device. The disks below it stay as they are";
}

const field = (name, label, value) => h("label", {}, label, h("input", { name, value, autocomplete: "off", spellcheck: "false" }));

// ask asks about an operation and does it with send.
export function ask(what, device, size, send) {
  const q = questions[what](device, size), dialog = $("ask"), yes = $("ask-yes");
  show($("ask-title"), q.title);
  show($("ask-text"), ...q.text);
  for (const i of dialog.querySelectorAll("input")) i.value = i.getAttribute("value");
  $("ask-error").textContent = "";
  yes.textContent = q.yes;
  yes.className = q.grave ? "grave" : "main";
  yes.onclick = async () => {
    const body = { name: device.name };
    for (const i of dialog.querySelectorAll("input")) body[i.name] = i.name === "size" ? parse(i.value) : i.value;
    if (Number.isNaN(body.size)) return void ($("ask-error").textContent = "Give a size such as 20G.");
    if (body.size < size) return void ($("ask-error").textContent = `It has ${bytes(size)} already.`);
    yes.disabled = true;
    const error = await send(what, body);
    yes.disabled = false;
    if (error) $("ask-error").textContent = visible(error);
    else dialog.close();
  };
  $("ask-no").onclick = () => dialog.close();
  dialog.showModal();
  (dialog.querySelector("input") || $("ask-no")).focus();
}

// parse reads a size in bytes.
function parse(text) {
  const m = /^\s*([\d.]+)\s*([BKMGTP]?)i?B?\s*$/i.exec(text);
  return m ? Math.round(Number(m[1]) * 1024 ** "BKMGTP".indexOf(m[2].toUpperCase() || "B")) : NaN;
}
