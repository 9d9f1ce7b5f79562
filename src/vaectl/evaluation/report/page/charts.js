// The charts that summarize all clips: rate and distortion, and error by position.

const CHART = { left: 52, right: 14, top: 12, bottom: 40 };

// Draws charts into `parent`, next to each other.
function drawCharts(parent, charts) {
  const boxes = charts.map((chart) => {
    const box = document.createElement("figure");
    box.className = "chart";
    heading(box, chart.name, chart.unit, chart.rest);
    return box;
  });
  parent.replaceChildren(...boxes);
  charts.forEach((chart, number) => drawChart(boxes[number], chart));
}

// Draws a chart into `box`. A series has a candidate and points, [x, y]; gaps of a line are points without y. `marks`
// are the ticks of x as [value, text]; without them x has a scale.
function drawChart(box, { name, unit, rest, across, series, digits, marks, named, alone }) {
  const width = Math.max(box.clientWidth, 200);
  const height = named ? Math.max(232, 130 + 20 * series.length) : 232;
  const { left, right, top, bottom } = CHART;
  const points = series.flatMap((one) => one.points).filter(([, y]) => Number.isFinite(y));
  const xs = marks ? marks.map(([x]) => x) : points.map(([x]) => x);
  const [x0, x1] = limits(xs, named ? 0.12 : 0.02) ?? [0, 1];
  const [y0, y1] = limits(points.map(([, y]) => y), 0.1) ?? [0, 1];
  const x = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - right);
  const y = (value) => top + ((y1 - value) / (y1 - y0)) * (height - top - bottom);
  const spoken = series.map(({ candidate, points }) => (several ? `${data.candidates[candidate]} ` : "") +
    points.map(([, value]) => (Number.isFinite(value) ? written(value, digits) : "none")).join(", "));
  const label = `${inUnit(name, unit)}${rest}, by ${across}: ${spoken.join("; ")}`;
  const drawing = add(box, "svg", { role: "img", width, height, "aria-label": label });

  if (!points.length) {
    add(drawing, "text", { class: "tick", x: width / 2, y: height / 2, "text-anchor": "middle" }, "no finite values");
    return;
  }
  const vertical = ticks(y0, y1, 5);
  for (const mark of vertical.marks) {
    add(drawing, "line", { class: "grid", x1: left, x2: width - right, y1: y(mark), y2: y(mark) });
    const text = written(mark, vertical.digits);
    add(drawing, "text", { class: "tick", x: left - 8, y: y(mark) + 4, "text-anchor": "end" }, text);
  }
  const horizontal = ticks(x0, x1, Math.max(2, Math.floor(width / 90)));
  const whole = horizontal.marks.filter((mark) => named || mark % 1 === 0); // frames have whole numbers
  const digitsAcross = named ? horizontal.digits : 0;
  for (const [mark, text] of marks ?? whole.map((mark) => [mark, written(mark, digitsAcross)])) {
    add(drawing, "text", { class: "tick", x: x(mark), y: height - bottom + 18, "text-anchor": "middle" }, text);
  }
  const middle = (left + width - right) / 2;
  add(drawing, "text", { class: "tick", x: middle, y: height - 4, "text-anchor": "middle" }, across);

  for (const one of series) {
    const group = add(drawing, "g", { class: style(one.candidate) });
    let pen = "M";
    let path = "";
    for (const [at, value] of one.points) {
      if (Number.isFinite(value)) path += `${pen}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = Number.isFinite(value) && at !== alone ? "L" : "M";
    }
    add(group, "path", { class: "line", d: path });
    for (const [at, value] of one.points) {
      if (!Number.isFinite(value)) continue;
      const [kind, r] = named ? ["point", 5] : one.points.length > 24 ? ["small point", 1.5] : ["point", 3.5];
      const dot = add(group, "circle", { class: kind, cx: x(at), cy: y(value), r });
      const whose = several ? `${data.candidates[one.candidate]}: ` : "";
      add(dot, "title", {}, `${whose}${written(value, digits)}${unit && ` ${unit}`}`);
    }
  }
  if (named) nameThem(drawing, series, x, y, width - right, height - bottom);
}

// Writes the name of each candidate near its point: as near as it can be without covering another name or point.
function nameThem(drawing, series, x, y, right, bottom) {
  const points = series.map(({ candidate, points: [[rate, value]] }) => ({ candidate, at: x(rate), down: y(value) }));
  const taken = points.map(({ at, down }) => ({ left: at - 6, right: at + 6, top: down - 6, bottom: down + 6 }));
  const free = (box) => taken.every((other) => box.right < other.left || box.left > other.right ||
    box.bottom < other.top || box.top > other.bottom);
  const steps = Array.from({ length: 25 }, (_, step) => (step % 2 ? 1 : -1) * Math.ceil(step / 2) * 8);
  for (const { candidate, at, down } of points.sort((a, b) => a.down - b.down)) {
    const name = data.candidates[candidate];
    const text = add(drawing, "text", { class: "name" }, short(name, 22));
    add(text, "title", {}, name);
    const length = text.getComputedTextLength();
    const places = steps.flatMap((step) => [1, -1].map((side) => {
      const left = at + side * 12 - (side < 0 ? length : 0);
      return { side, left, right: left + length, top: down + step - 7, bottom: down + step + 7 };
    })).filter((box) => box.left >= CHART.left && box.right <= right && box.top >= 0 && box.bottom <= bottom);
    const box = places.find(free) ?? places[0];
    if (!box) continue;
    taken.push(box);
    text.setAttribute("x", box.left);
    text.setAttribute("y", box.bottom - 3);
    if (Math.abs(box.bottom - 7 - down) > 8) {
      const end = box.side > 0 ? box.left - 2 : box.right + 2;
      add(drawing, "line", { class: "leader", x1: at, y1: down, x2: end, y2: box.bottom - 7 });
    }
  }
}

function drawRates() {
  const { bits, metrics, values } = data.rates;
  drawCharts($("rate-charts"), metrics.map((metric, row) => {
    const known = bits.map((rate, number) => ({ candidate: number, points: [[rate, values[row][number]]] }))
      .filter((one) => visible(one.candidate) && one.points[0].every(Number.isFinite));
    return {
      name: metric.name, unit: metric.unit, rest: metric.better === "higher" ? " ↑" : " ↓",
      across: "bits of latent per pixel", series: known, named: true, digits: metric.digits,
    };
  }));
}

function drawPositions() {
  const number = Number($("position-metric").value);
  const { name, unit, digits } = data.metrics[number];
  const found = data.positions[number].map((one, at) => ({ ...one, candidate: at }))
    .filter((one) => visible(one.candidate));
  const grouped = found.filter((one) => one.within?.length > 1);
  const length = Math.max(0, ...grouped.map((one) => one.within.length));
  const charts = [];
  if (grouped.length) {
    const first = grouped.some((one) => one.first !== null);
    charts.push({
      name, unit, rest: " within a group", digits, alone: -1,
      across: "position among the frames of one latent frame",
      marks: [...(first ? [[-1, "frame 0"]] : []), ...Array.from({ length }, (_, at) => [at, at])],
      series: grouped.map((one) => ({ candidate: one.candidate,
        points: [...(first ? [[-1, one.first]] : []), ...one.within.map((value, at) => [at, value])] })),
    });
  }
  charts.push({
    name, unit, rest: " over time", digits, across: "frame",
    series: found.map((one) => ({ candidate: one.candidate, points: one.over.map((value, at) => [at, value]) })),
  });
  drawCharts($("position-charts"), charts);
}

function drawAll() {
  if (data.rates) drawRates();
  if (data.positions.length) drawPositions();
}

function buildCharts() {
  $("rates").hidden = !data.rates;
  $("positions").hidden = !data.positions.length;
  data.metrics.forEach((metric, number) => add($("position-metric"), "option", { value: number }, metric.name));
  $("position-metric").closest("label").hidden = data.metrics.length < 2;
  $("position-metric").addEventListener("change", drawPositions);
  drawAll();
  const main = document.querySelector("main");
  let width = main.clientWidth;
  new ResizeObserver(() => {
    if (main.clientWidth === width) return;
    width = main.clientWidth;
    requestAnimationFrame(drawAll);
  }).observe(main);
}
