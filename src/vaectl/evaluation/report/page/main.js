// The selected clip and frame. The address holds both (#clip=3&frame=12), so a link shows the same view.

let chosen = null;
let frame = 0;
let moveCursors = () => {};

data.clips.forEach((clip, number) => {
  clip.number = number;
  clip.means = unpack(clip.means, Float64Array);
});

// `settle` also puts the frame into the address and moves the video to it.
function show(next, settle = true) {
  frame = clamp(next, 0, chosen.frames - 1);
  $("frame").value = frame;
  $("position").textContent = `${frame} / ${chosen.frames - 1}`;
  $("screen").setAttribute("aria-label", `Preview of frame ${frame}: the original and the generated clip`);
  moveCursors(frame);
  if (!settle) return;
  player.seek(frame);
  clearTimeout(show.later);
  show.later = setTimeout(() => history.replaceState(null, "", `#clip=${chosen.number}&frame=${frame}`), 200);
}

function plot() {
  const series = chosen.values.map((values) => unpack(values, Float32Array));
  moveCursors = drawPlots($("plots"), chosen, series, (at) => { player.video.pause(); show(at); },
    (at) => moveCursors(at ?? frame));
  moveCursors(frame);
}

function choose(clip, first) {
  const media = data.media[clip.number];
  chosen = clip;
  table.mark();
  $("name").textContent = clip.name || "(no name)";
  const rate = media ? [`shown at ${Number(media.frame_rate.toFixed(3))} frames per second`] : [];
  $("about").textContent = [plural(clip.frames, "frame"), `${clip.width}x${clip.height}`, ...rate].join(" · ");
  $("about").title = [clip.real, clip.generated].filter(Boolean).join("\n");
  for (const id of ["player", "transport", "options", "worst"]) $(id).hidden = !media;
  $("no-media").hidden = Boolean(media);
  $("frame").max = clip.frames - 1;
  $("frame").disabled = clip.frames < 2;
  player.load(media);
  if (media) showWorst(clip, media);
  plot();
  show(first ?? media?.frame ?? 0);
}

function showWorst(clip, media) {
  const by = data.ranking ? ` by ${data.ranking}` : "";
  $("worst-title").textContent = `Worst frame${by}: ${media.frame}`;
  $("reduced").textContent = media.width < clip.width ? ` and reduced to ${media.width}x${media.height}` : "";
  $("worst-reduced").textContent = Math.max(clip.width, clip.height) > 512 ? " Pictures are reduced." : "";
  for (const side of ["real", "generated", "error"]) {
    const name = { real: "original", generated: "generated", error: "absolute error" }[side];
    Object.assign($(`worst-${side}`), { src: media[side], alt: `Frame ${media.frame} of ${clip.name}, ${name}` });
  }
  $("scale").src = data.scale;
  $("scale-middle").textContent = media.top % 2 ? "" : media.top / 2;
  $("scale-top").textContent = media.top + (media.beyond ? " and more" : "");
}

function follow() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const clip = data.clips[Number.parseInt(wanted.get("clip"), 10)];
  const next = clip ?? chosen ?? table.order()[0];
  const at = wanted.has("frame") && clip ? Number.parseInt(wanted.get("frame"), 10) || 0 : undefined;
  if (next !== chosen) choose(next, at);
  else if (at !== undefined && at !== frame) show(at);
}

player.onframe = (at) => show(at, false);
$("frame").addEventListener("input", () => { player.video.pause(); show(Number($("frame").value)); });
$("back").addEventListener("click", () => { player.video.pause(); show(frame - 1); });
$("forward").addEventListener("click", () => { player.video.pause(); show(frame + 1); });
$("to-worst").addEventListener("click", () => { player.video.pause(); show(data.media[chosen.number].frame); });
player.video.addEventListener("pause", () => show(frame, true));
addEventListener("beforeprint", () => { $("protocol").open = true; });
$("theme").addEventListener("change", () => { document.documentElement.dataset.theme = $("theme").value; });

if (data.clips.length) {
  $("clips").hidden = false; const kept = Object.keys(data.media).length; const which = data.ranking ? `${kept} worst
  clips only, by ${data.ranking}` : `first ${kept} clips only`; $("no-media").textContent = kept ? `The report has video
  and pictures of the ${which}.` : "The report has no video and no pictures."; table.draw(); follow();
  addEventListener("hashchange", () => {
    const before = chosen;
    follow();
    if (chosen !== before && matchMedia("(max-width: 900px)").matches) $("clip").scrollIntoView();
  });
  new ResizeObserver(() => requestAnimationFrame(plot)).observe($("clip"));
}
