// Helpers of the other scripts: elements, numbers, and the data of the page.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function add(parent, name, attributes = {}, text = "") {
  const inside = name === "svg" || parent.namespaceURI?.endsWith("svg");
  const child = inside ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) child.setAttribute(key, value);
  if (text !== "") child.textContent = text;
  parent.append(child);
  return child;
}

// Numbers are little-endian bytes in base64: 4 or 8 bytes each.
function unpack(text, kind) {
  return new kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

function written(value, digits) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "-∞";
  return value.toFixed(digits);
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
