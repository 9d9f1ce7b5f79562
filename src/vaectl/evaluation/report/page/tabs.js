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
