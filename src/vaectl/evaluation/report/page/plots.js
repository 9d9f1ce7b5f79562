// A plot over the frames for each metric, with a shared cursor. Knows nothing of videos.

const GUTTER = 52;
const PLOT_HEIGHT = 92;
const RIM = 8;

// If there are fewer numbers than frames, they belong to the last frames: a change counts for the second frame.
const place = (series, index, frames) => index + frames - series.length;

function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((unit) => unit * power).find((unit) => unit >= rough * 0.999);
  const marks = [];
  for (let mark = Math.ceil(low / step - 1e-9); mark * step <= high + step * 1e-9; mark++) marks.push(mark * step);
  return { marks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

// Draws the plots of a clip into `parent`. Calls `choose` with a frame that is clicked, and `look` with the frame under
// the pointer, or null when it leaves. Returns a function that moves the cursor to a frame.
function drawPlots(parent, clip, series, choose, look) {
  // Measure before the old plots are removed: a shorter page may lose its scroll bar and become wider.
  const width = Math.max(parent.clientWidth, 160);
  parent.replaceChildren();
  const x = (frame) => GUTTER + (clip.frames > 1 ? frame / (clip.frames - 1) : 0.5) * (width - GUTTER - RIM);
  const frameAt = (event) => {
    const across = (event.clientX - parent.getBoundingClientRect().left - GUTTER) / (width - GUTTER - RIM);
    return clamp(Math.round(across * (clip.frames - 1)), 0, clip.frames - 1);
  };
  const cursors = data.metrics.map((metric, number) =>
    drawPlot(parent, clip, metric, series[number], x, width, number === data.metrics.length - 1));

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

function drawPlot(parent, clip, metric, series, x, width, last) {
  const finite = [...series].filter(Number.isFinite); let [low, high] = finite.length ? [Math.min(...finite),
  Math.max(...finite)] : [0, 1]; const room = (high - low) * 0.08 || Math.abs(high) * 0.01 || 0.5; [low, high] = [low -
  room, high + room]; const y = (value) => clamp(RIM + ((high - value) / (high - low)) * (PLOT_HEIGHT - 2 * RIM), RIM /
  2, PLOT_HEIGHT - RIM / 2); const show = (value) => written(value, metric.digits);

  const box = add(parent, "div", { class: "plot" });
  const head = add(box, "div", { class: "plot-head" });
  add(head, "h3", {}, metric.name);
  const readout = add(head, "p", { class: "readout" });
  const mean = series.length ? show(clip.means[data.metrics.indexOf(metric)]) : "none";
  const range = finite.length ? `, from ${show(Math.min(...finite))} to ${show(Math.max(...finite))}` : "";
  const drawing = add(box, "svg", {
    role: "img", width, height: PLOT_HEIGHT + (last ? 18 : 0),
    "aria-label": `${metric.name} over ${plural(clip.frames, "frame")}: mean ${mean}${range}`,
  });

  if (finite.length) {
    const scale = ticks(low, high, 4);
    for (const mark of scale.marks) {
      add(drawing, "line", { class: "grid", x1: GUTTER, x2: width, y1: y(mark), y2: y(mark) }); add(drawing, "text", {
      class: "tick", x: GUTTER - 8, y: y(mark) + 4, "text-anchor": "end" }, written(mark, scale.digits));
    }
  }
  if (last) {
    for (const mark of ticks(0, Math.max(clip.frames - 1, 1), Math.max(2, Math.floor(width / 90))).marks) {
      if (mark % 1 === 0 && mark < clip.frames) {
        add(drawing, "text", { class: "tick", x: x(mark), y: PLOT_HEIGHT + 14, "text-anchor": "middle" }, mark);
      }
    }
  }

  let path = "";
  let pen = "M";
  series.forEach((value, index) => {
    const at = x(place(series, index, clip.frames));
    if (Number.isFinite(value)) path += `${pen}${at.toFixed(1)} ${y(value).toFixed(1)}`;
    else add(drawing, "text", { class: "exact", x: at, y: RIM + 6, "text-anchor": "middle" }, written(value, 0));
    pen = Number.isFinite(value) ? "L" : "M";
  });
  add(drawing, "path", { class: "line", d: path });
  if (finite.length) {
    const worst = metric.better === "higher" ? Math.min(...finite) : Math.max(...finite); const index =
    series.indexOf(worst); const mark = add(drawing, "circle", { class: "worst-mark", cx: x(place(series, index,
    clip.frames)), cy: y(worst), r: 3.5 }); add(mark, "title", {}, `worst: ${show(worst)}`);
  }

  const cursor = add(drawing, "line", { class: "cursor", y1: 0, y2: PLOT_HEIGHT });
  const dot = add(drawing, "circle", { class: "dot", r: 4 });
  return (frame) => {
    const value = series[frame - place(series, 0, clip.frames)];
    cursor.setAttribute("x1", x(frame));
    cursor.setAttribute("x2", x(frame));
    dot.setAttribute("visibility", Number.isFinite(value) ? "visible" : "hidden");
    if (Number.isFinite(value)) {
      dot.setAttribute("cx", x(frame));
      dot.setAttribute("cy", y(value));
    }
    readout.replaceChildren();
    add(readout, "span", {}, `frame ${frame}`);
    add(readout, "b", {}, value === undefined ? "none" : show(value) + (metric.unit && ` ${metric.unit}`));
    add(readout, "span", {}, `mean ${mean}`);
  };
}
