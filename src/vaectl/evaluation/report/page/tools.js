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

const inUnit = (name, unit) => (unit ? `${name} (${unit})` : name);

// A heading in capitals, but not its unit.
function heading(parent, name, unit, rest = "") {
  const title = add(parent, "h3", {}, name);
  if (unit) add(title, "span", { class: "unit" }, ` (${unit})`);
  title.append(rest);
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// A long name without its middle: the ends of names differ most.
const short = (name, length) =>
  name.length <= length ? name : `${name.slice(0, Math.ceil(length / 2) - 1)}…${name.slice(-Math.floor(length / 2))}`;

// The limits of an axis for these values, with some room; undefined if none is finite.
function limits(values, share) {
  const finite = values.filter(Number.isFinite);
  if (!finite.length) return undefined;
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const room = (high - low) * share || Math.abs(high) * 0.01 || 0.5;
  return [low - room, high + room];
}

function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((unit) => unit * power).find((unit) => unit >= rough * 0.999);
  const marks = [];
  for (let mark = Math.ceil(low / step - 1e-9); mark * step <= high + step * 1e-9; mark++) marks.push(mark * step);
  return { marks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}
