// The selected candidate, clip and frame. The address holds them (#candidate=1&clip=3&frame=12; without the candidate
// where there is only one), so a link shows the same view.

let chosen = null;
let frame = 0;
let moveCursors = () => {};

data.clips.forEach((clip, number) => {
  clip.number = number;
  clip.means = clip.means.map((means) => unpack(means, Float64Array));
});

function address(clip, at) {
  return `#${several ? `candidate=${candidate}&` : ""}clip=${clip}${at === undefined ? "" : `&frame=${at}`}`;
}

// The first and the last frame that the video shows: those of one window, if the clip was measured in several.
function shown(clip) {
  const media = data.media[clip.number];
  return media ? [media.first, media.first + media.num_frames - 1] : [0, clip.frames - 1];
}

// `settle` also puts the frame into the address and moves the video to it.
function show(next, settle = true) {
  const [low, high] = shown(chosen);
  frame = clamp(next, low, high);
  $("frame").value = frame;
  $("position").textContent = `${frame} / ${chosen.frames - 1}`;
  const sides = player.screens.map((_, side) => sideName(side));
  $("screens").setAttribute("aria-label", `Preview of frame ${frame}: ${sides.join(", ")}`);
  moveCursors(frame);
  if (!settle) return;
  player.seek(frame);
  clearTimeout(show.later);
  show.later = setTimeout(() => history.replaceState(null, "", address(chosen.number, frame)), 200);
}

function plot() {
  const values = chosen.values.map((rows) => rows.map((row) => unpack(row, Float32Array)));
  moveCursors = drawPlots($("plots"), chosen, values, candidate, (at) => { player.video.pause(); show(at); },
    (at) => moveCursors(at ?? frame));
  moveCursors(frame);
}

// Shows a candidate: its cards, its numbers in the table, its line in front, and its side in the wipe.
function select(number) {
  candidate = number;
  if (several) showTab();
  table.draw();
  player.compare(number + 1);
  if (!chosen) return;
  plot();
  show(frame);
}

function choose(clip, first) {
  const media = data.media[clip.number];
  chosen = clip;
  table.mark();
  $("name").textContent = clip.name || "(no name)";
  const rate = media ? [`shown at ${Number(media.frame_rate.toFixed(3))} frames per second`] : [];
  const [low, high] = shown(clip);
  const part = high - low + 1 < clip.frames ? [`frames ${low} to ${high} shown`] : [];
  $("about").textContent = [plural(clip.frames, "frame"), `${clip.width}x${clip.height}`, ...rate, ...part].join(" · ");
  $("about").title = clip.files.join("\n");
  for (const id of ["player", "transport", "options", "worst"]) $(id).hidden = !media;
  $("no-media").hidden = Boolean(media);
  $("frame").min = low;
  $("frame").max = high;
  $("frame").disabled = low === high;
  player.load(media);
  if (media) showWorst(clip, media);
  plot();
  show(first ?? media?.frame ?? 0);
}

function showWorst(clip, media) {
  const by = data.ranking ? ` by ${data.ranking}${several ? ", mean over the candidates" : ""}` : "";
  $("worst-title").textContent = `Worst frame${by}: ${media.frame}`;
  $("reduced").textContent = media.width < clip.width ? ` and reduced to ${media.width}x${media.height}` : "";
  $("worst-reduced").textContent = media.picture_width < clip.width ? " Pictures are reduced." : "";
  $("pictures").replaceChildren();
  $("pictures").classList.toggle("stacked", several);
  const figure = (...pictures) => {
    const box = add($("pictures"), "figure");
    for (const [kind, src, what] of pictures) {
      const size = { width: media.picture_width, height: media.picture_height }; // known before it is decoded
      add(box, "img", { class: `worst-${kind}`, src, ...size, alt: `Frame ${media.frame} of ${clip.name}, ${what}` });
    }
    return add(box, "figcaption");
  };
  figure(["real", media.real, "original"]).textContent = "original";
  media.generated.forEach((generated, number) => {
    const name = sideName(number + 1);
    const both = [["generated", generated, name], ["error", media.errors[number], `absolute error of ${name}`]];
    if (several) key(figure(...both), number, name);
    else for (const one of both) figure(one).textContent = one[0];
  });
  $("scale").src = data.scale;
  $("scale-middle").textContent = media.top % 2 ? "" : media.top / 2;
  $("scale-top").textContent = media.top + (media.beyond ? " and more" : "");
}

const linked = () => new URLSearchParams(location.hash.slice(1));

// Scrolls to what the address names.
const reveal = () => $(linked().has("clip") ? "clip" : "panel").scrollIntoView();

function follow() {
  const wanted = linked();
  const number = Number.parseInt(wanted.get("candidate"), 10);
  const other = number !== candidate && number in data.candidates;
  if (other || !chosen) select(other ? number : candidate);
  const clip = data.clips[Number.parseInt(wanted.get("clip"), 10)];
  const next = clip ?? chosen ?? table.order().find((one) => one.number in data.media) ?? table.order()[0];
  const at = wanted.has("frame") && clip ? Number.parseInt(wanted.get("frame"), 10) || 0 : undefined;
  if (next !== chosen) choose(next, at);
  else if (at !== undefined && at !== frame) show(at);
}

player.onframe = (at) => show(player.media.first + at, false);
$("frame").addEventListener("input", () => { player.video.pause(); show(Number($("frame").value)); });
$("back").addEventListener("click", () => { player.video.pause(); show(frame - 1); });
$("forward").addEventListener("click", () => { player.video.pause(); show(frame + 1); });
$("to-worst").addEventListener("click", () => { player.video.pause(); show(data.media[chosen.number].frame); });
player.video.addEventListener("pause", () => show(frame, true));
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
$("theme").addEventListener("change", () => { document.documentElement.dataset.theme = $("theme").value; });

if (several) buildTabs((number) => {
  select(number);
  $("tab-" + number).scrollIntoView({ block: "nearest", inline: "nearest" });
});
buildCharts();
buildLegends(() => {
  drawAll();
  if (chosen) plot();
});
if (data.clips.length) {
  const kept = Object.keys(data.media).length;
  const mean = several ? ", mean over the candidates" : "";
  const which = data.ranking ? `${kept} worst clips only, by ${data.ranking}${mean}` : `first ${kept} clips only`;
  $("no-media").textContent = kept ? `The report has video and pictures of the ${which}.`
    : "The report has no video and no pictures.";
  $("clips").hidden = false;
  follow();
  if (!linked().has("clip")) clearTimeout(show.later); // until one is chosen
  // After a reload, the browser restores the place.
  const opened = performance.getEntriesByType("navigation")[0].type === "navigate";
  if (opened && (linked().has("clip") || linked().has("candidate"))) reveal();
  let clicked = -Infinity;
  $("rows").addEventListener("click", (event) => { clicked = event.timeStamp; });
  addEventListener("hashchange", (event) => {
    follow();
    // Next to the table, the place stays, so that one part of several clips can be compared.
    const stays = event.timeStamp - clicked < 500 && !matchMedia("(max-width: 900px)").matches;
    if (!stays) reveal();
  });
  new ResizeObserver(() => requestAnimationFrame(() => { player.resize(); plot(); })).observe($("clip"));
}
