// A plot over the frames for each metric, with a shared cursor and a line for each candidate. Knows nothing of videos.

const GUTTER = 52;
const PLOT_HEIGHT = 92;
const RIM = 8;

// If there are fewer numbers than frames, they belong to the last frames: a change counts for the second frame.
const place = (series, index, frames) => index + frames - series.length;

// Draws the plots of a clip into `parent`; `values` has the numbers of each candidate and metric, and `front` is the
// candidate in front. Calls `choose` with a frame that is clicked, and `look` with the frame under the pointer, or null
// when it leaves. Returns a function that moves the cursor to a frame.
function drawPlots(parent, clip, values, front, choose, look) {
  // Measure before the old plots are removed: a shorter page may lose its scroll bar and become wider.
  const width = Math.max(parent.clientWidth, 160);
  parent.replaceChildren();
  const x = (frame) => GUTTER + (clip.frames > 1 ? frame / (clip.frames - 1) : 0.5) * (width - GUTTER - RIM);
  const frameAt = (event) => {
    const across = (event.clientX - parent.getBoundingClientRect().left - GUTTER) / (width - GUTTER - RIM);
    return clamp(Math.round(across * (clip.frames - 1)), 0, clip.frames - 1);
  };
  const cursors = data.metrics.map((_, number) =>
    drawPlot(parent, clip, number, values.map((rows) => rows[number]), front, x, width));

  parent.onpointerdown = (event) => {
    if (!event.target.closest("svg")) return;
    parent.setPointerCapture(event.pointerId);
    choose(frameAt(event));
  };
  parent.onpointermove = (event) => {
    if (event.buttons) choose(frameAt(event));
    else look(event.target.closest("svg") ? frameAt(event) : null);
  };
  parent.onpointerleave = () => look(null);
  return (frame) => cursors.forEach((move) => move(frame));
}

function drawPlot(parent, clip, number, series, front, x, width) {
  const metric = data.metrics[number];
  const last = number === data.metrics.length - 1;
  const order = [...series.keys()].filter(visible);
  const range = limits(order.flatMap((at) => [...series[at]]), 0.08);
  const [low, high] = range ?? [0, 1];
  const across = (value) => RIM + ((high - value) / (high - low)) * (PLOT_HEIGHT - 2 * RIM);
  const y = (value) => clamp(across(value), RIM / 2, PLOT_HEIGHT - RIM / 2);
  const show = (value) => written(value, metric.digits);
  const means = series.map((one, at) => (one.length ? show(clip.means[at][number]) : "none"));

  const box = add(parent, "div", { class: "plot" });
  const head = add(box, "div", { class: "plot-head" });
  heading(head, metric.name, several && metric.unit);
  const readout = add(head, "p", { class: "readout" });
  const drawing = add(box, "svg", {
    role: "img", width, height: PLOT_HEIGHT + (last ? 18 : 0),
    "aria-label": `${metric.name} over ${plural(clip.frames, "frame")}: ${order.map((at) => {
      const finite = [...series[at]].filter(Number.isFinite);
      const from = finite.length ? `, from ${show(Math.min(...finite))} to ${show(Math.max(...finite))}` : "";
      return `${several ? `${data.candidates[at]}, ` : ""}mean ${means[at]}${from}`;
    }).join("; ")}`,
  });

  if (range) {
    const scale = ticks(low, high, 4);
    for (const mark of scale.marks) {
      add(drawing, "line", { class: "grid", x1: GUTTER, x2: width, y1: y(mark), y2: y(mark) });
      add(drawing, "text", { class: "tick", x: GUTTER - 8, y: y(mark) + 4, "text-anchor": "end" },
        written(mark, scale.digits));
    }
  }
  if (last) {
    for (const mark of ticks(0, Math.max(clip.frames - 1, 1), Math.max(2, Math.floor(width / 90))).marks) {
      if (mark % 1 === 0 && mark < clip.frames) {
        add(drawing, "text", { class: "tick", x: x(mark), y: PLOT_HEIGHT + 14, "text-anchor": "middle" }, mark);
      }
    }
  }

  const cursor = add(drawing, "line", { class: "cursor", y1: 0, y2: PLOT_HEIGHT });
  const dots = [];
  // The candidate in front is drawn last.
  for (const at of [...order].sort((a, b) => (a === front) - (b === front))) {
    const group = add(drawing, "g", { class: style(at) });
    group.classList.toggle("front", several && at === front);
    drawLine(group, clip, metric, series[at], at === front, x, y, show);
    dots[at] = add(group, "circle", { class: "dot", r: 4 });
  }
  return (frame) => {
    cursor.setAttribute("x1", x(frame));
    cursor.setAttribute("x2", x(frame));
    readout.replaceChildren();
    add(readout, "span", {}, `frame ${frame}`);
    for (const at of order) {
      const one = series[at];
      const value = one[frame - place(one, 0, clip.frames)];
      dots[at].setAttribute("visibility", Number.isFinite(value) ? "visible" : "hidden");
      if (Number.isFinite(value)) {
        dots[at].setAttribute("cx", x(frame));
        dots[at].setAttribute("cy", y(value));
      }
      const item = add(readout, "span", several ? { class: "key", title: data.candidates[at] } : {});
      if (several) add(item, "i", { class: `swatch ${style(at)}` });
      const unit = metric.unit && !several ? ` ${metric.unit}` : "";
      add(item, "b", {}, value === undefined || Number.isNaN(value) ? "none" : show(value) + unit);
    }
    if (!several) add(readout, "span", {}, `mean ${means[0]}`);
  };
}

function drawLine(group, clip, metric, series, front, x, y, show) {
  let path = "";
  let pen = "M";
  series.forEach((value, index) => {
    const at = x(place(series, index, clip.frames));
    if (Number.isFinite(value)) path += `${pen}${at.toFixed(1)} ${y(value).toFixed(1)}`;
    else if (!Number.isNaN(value)) add(group, "text", { class: "exact", x: at, y: RIM + 6, "text-anchor": "middle" }, written(value, 0));
    pen = Number.isFinite(value) ? "L" : "M";
  });
  add(group, "path", { class: "line", d: path });
  const finite = [...series].filter(Number.isFinite);
  if (!front || !finite.length) return;
  const worst = metric.better === "higher" ? Math.min(...finite) : Math.max(...finite);
  const at = x(place(series, series.indexOf(worst), clip.frames));
  const mark = add(group, "circle", { class: "worst-mark", cx: at, cy: y(worst), r: 3.5 });
  add(mark, "title", {}, `worst: ${show(worst)}`);
}
