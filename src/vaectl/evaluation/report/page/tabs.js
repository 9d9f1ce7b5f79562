// The tabs: one for each candidate, where there are several. The tab decides whose cards, table and emphasis are shown.

let candidate = 0;
const several = data.candidates.length > 1;

// The name of a side of the player: the original, then the candidates.
const sideName = (side) => (side ? (several ? data.candidates[side - 1] : "generated") : "original");

// The class with the colour and the dashes of a candidate.
const style = (number) => (several ? `c${number % data.styles}` : "");

// An element with a line as in the plots, and a name.
function key(parent, number, name) {
  add(parent, "i", { class: `swatch ${style(number)}` });
  add(parent, "span", { title: name }, short(name, 26));
}

// The candidates that plots leave out. One at least is shown.
const hidden = new Set();
const visible = (number) => !hidden.has(number);

// Fills the legends of the plots, where there are several candidates. A click on a candidate hides or shows it in all
// plots; `redraw` draws them again.
function buildLegends(redraw) {
  const mark = () => document.querySelectorAll(".legend button").forEach((button) => {
    button.setAttribute("aria-pressed", visible(Number(button.value)));
  });
  for (const legend of document.querySelectorAll(".legend")) {
    legend.hidden = !several;
    data.candidates.forEach((name, number) => {
      const button = add(legend, "button", { type: "button", class: "key", value: number });
      button.title = "Hide or show in the plots";
      key(button, number, name);
      button.addEventListener("click", () => {
        if (hidden.has(number)) hidden.delete(number);
        else if (hidden.size < data.candidates.length - 1) hidden.add(number);
        mark();
        redraw();
      });
    });
  }
  mark();
}

function showTab() {
  [...$("tabs").children].forEach((tab, number) => {
    tab.setAttribute("aria-selected", number === candidate);
    tab.tabIndex = number === candidate ? 0 : -1;
  });
  $("panel").setAttribute("aria-labelledby", `tab-${candidate}`);
  document.querySelectorAll(".candidate").forEach((section, number) => { section.hidden = number !== candidate; });
}

// Builds the tabs. Calls `choose` with the number of the candidate.
function buildTabs(choose) {
  data.candidates.forEach((name, number) => {
    const role = { type: "button", role: "tab", id: `tab-${number}`, "aria-controls": "panel" };
    const tab = add($("tabs"), "button", role);
    key(tab, number, name);
    tab.addEventListener("click", () => choose(number));
  });
  $("tabs").addEventListener("keydown", (event) => {
    const last = data.candidates.length - 1;
    const next = { ArrowLeft: candidate - 1, ArrowRight: candidate + 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    choose((next + last + 1) % (last + 1));
    $(`tab-${candidate}`).focus();
  });
  $("panel").setAttribute("role", "tabpanel");
  $("tabs").hidden = false;
}
