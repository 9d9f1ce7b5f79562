// The table of clips, with the numbers of one candidate: sorted by any column, filtered by name. Shows a part at a time,
// so that thousands open fast.

const PART = 200;

const table = {
  column: data.ranking ? data.metrics.findIndex((metric) => metric.name === data.ranking) : -1,
  // Metrics sort worst first, names from A to Z.
  reversed: false,
  shown: PART,

  order() {
    const wanted = $("filter").value.toLowerCase();
    const order = data.clips.filter((clip) => clip.name.toLowerCase().includes(wanted));
    const metric = data.metrics[this.column];
    if (!metric) order.sort((a, b) => names.compare(a.name, b.name));
    else {
      const sign = metric.better === "higher" ? 1 : -1;
      const value = (clip) => clip.means[candidate][this.column];
      const rank = (clip) => (Number.isNaN(value(clip)) ? -Infinity : sign * value(clip));
      order.sort((a, b) => (rank(a) === rank(b) ? a.number - b.number : rank(a) - rank(b)));
    }
    return this.reversed ? order.reverse() : order;
  },

  draw() {
    const order = this.order();
    const rows = order.slice(0, this.shown).map((clip) => {
      const row = document.createElement("tr");
      const head = add(row, "th", { scope: "row" });
      const link = add(head, "a", { href: address(clip.number), title: clip.name }, clip.name || "(no name)");
      if (data.media[clip.number]) add(link, "span", { class: "unseen" }, ", with video");
      head.classList.toggle("with-media", clip.number in data.media);
      const means = clip.means[candidate];
      data.metrics.forEach((metric, column) => add(row, "td", {}, written(means[column], metric.digits)));
      clip.link = link;
      row.classList.toggle("chosen", clip === chosen);
      return row;
    });
    $("rows").replaceChildren(...rows);
    $("count").textContent = order.length === data.clips.length
      ? plural(order.length, "clip") : `${order.length} of ${plural(data.clips.length, "clip")}`;
    if (rows.length < order.length) $("count").textContent += `, the first ${rows.length} shown`;
    $("more").hidden = rows.length === order.length;
    [...$("columns").children].forEach((cell, index) => {
      if (index - 1 !== this.column) cell.removeAttribute("aria-sort");
      else cell.setAttribute("aria-sort", this.descending() ? "descending" : "ascending");
    });
    this.mark();
  },

  // Whether the rows are in descending order.
  descending() {
    const rises = this.column < 0 || data.metrics[this.column].better === "higher";
    return rises === this.reversed;
  },

  mark() {
    data.clips.forEach((clip) => {
      clip.link?.closest("tr").classList.toggle("chosen", clip === chosen);
      if (clip === chosen) clip.link?.setAttribute("aria-current", "true");
      else clip.link?.removeAttribute("aria-current");
    });
  },

  sort(column) {
    this.reversed = column === this.column && !this.reversed;
    this.column = column;
    this.shown = PART;
    this.draw();
    $("scroller").scrollTop = 0;
  },
};

const names = new Intl.Collator(undefined, { numeric: true });
["Clip", ...data.metrics.map((metric) => metric.name)].forEach((name, index) => {
  const cell = add($("columns"), "th", { scope: "col" });
  add(cell, "button", { type: "button" }, name).addEventListener("click", () => table.sort(index - 1));
});
$("filter").addEventListener("input", () => {
  table.shown = PART;
  table.draw();
});
$("more").addEventListener("click", () => {
  table.shown += PART * 5;
  table.draw();
});
