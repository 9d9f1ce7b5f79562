// Plays all sides of a clip in sync: the original and each candidate. They are parts of one video, so they cannot drift
// apart. Each is drawn on a canvas of its own; in the wipe view two of them share the first canvas. The frame is copied
// from the video once, because the next one may come while the sides are drawn.

const GAP = 6;
const CAPTION = 28; // pixels below a side
const even = (size) => size + (size % 2);

const player = {
  media: null,
  video: Object.assign(document.createElement("video"),
    { muted: true, loop: true, playsInline: true, preload: "auto" }),
  sheet: document.createElement("canvas"), // the frame that is shown, with all sides
  screens: [],
  onframe() {}, // called with the frame whenever playback shows another one

  // Makes a canvas for each side, and lists of the sides for the wipe.
  build() {
    for (let side = 0; side <= data.candidates.length; side++) {
      const box = add($("screens"), "div", { class: "side" });
      this.screens.push(add(box, "canvas"));
      const caption = add(box, "p", { class: "caption" });
      if (several && side) key(caption, side - 1, sideName(side));
      else caption.textContent = sideName(side);
      for (const list of [$("left"), $("right")]) add(list, "option", { value: side }, sideName(side));
    }
    $("left").disabled = $("right").disabled = !several;
    this.compare(1);
  },

  // Wipes a side over the original.
  compare(side) {
    $("left").value = 0;
    $("right").value = side;
    this.draw();
  },

  load(media) {
    this.video.pause();
    this.media = media;
    if (media) this.video.src = media.video;
    else this.video.removeAttribute("src");
    this.video.load();
    this.resize();
  },

  // Pictures are shown at their own size, small ones up to twice that; as large as all of them fit into the window.
  resize() {
    if (!this.media) return;
    const { width, height } = this.media;
    const place = $("player").parentElement.clientWidth;
    const size = (columns) => Math.min((place - GAP * (columns - 1)) / columns, Math.max(2 * width, 120));
    const rows = (columns) => Math.ceil(this.screens.length / columns);
    let columns = 1;
    if (!this.wiping) {
      const tall = () => rows(columns) * ((size(columns) * height) / width + CAPTION) > innerHeight * 0.95;
      if (!several) columns = 2;
      else while (columns < this.screens.length && size(columns + 1) >= 96 && tall()) columns++;
    }
    const balanced = this.wiping ? 1 : Math.ceil(this.screens.length / rows(columns));
    const cell = this.wiping ? Math.min(place, Math.max(2 * width, 240)) : size(columns);
    $("screens").style.gridTemplateColumns = `repeat(${balanced}, minmax(0, 1fr))`;
    $("player").style.maxWidth = `${balanced * cell + GAP * (balanced - 1)}px`;
    for (const screen of this.screens) Object.assign(screen, { width, height });
    this.draw();
  },

  get wiping() {
    return $("view").value === "wipe";
  },

  draw() {
    if (!this.media || this.video.readyState < 2) return;
    const { width, height } = this.media;
    const [across, down] = [this.video.videoWidth, this.video.videoHeight];
    if (this.sheet.width !== across || this.sheet.height !== down) {
      Object.assign(this.sheet, { width: across, height: down });
    }
    this.sheet.getContext("2d").drawImage(this.video, 0, 0);
    if (!this.wiping) {
      this.screens.forEach((screen, side) => this.paint(screen, side, 0, width));
      return;
    }
    const edge = Math.round($("wipe").value * width);
    this.paint(this.screens[0], Number($("left").value), 0, edge);
    this.paint(this.screens[0], Number($("right").value), edge, width);
    if (edge === width) return;
    const brush = this.screens[0].getContext("2d");
    brush.fillStyle = "#fff";
    brush.fillRect(edge - 1, 0, 2, height);
  },

  // Draws the columns of a side between two places.
  paint(screen, side, from, to) {
    if (from >= to) return;
    const { width, height, columns } = this.media;
    const left = (side % columns) * even(width) + from;
    const top = Math.floor(side / columns) * even(height);
    const brush = screen.getContext("2d");
    brush.drawImage(this.sheet, left, top, to - from, height, from, 0, to - from, height);
  },

  // The middle of the frame, so that rounding cannot select a neighbour.
  seek(frame) {
    if (this.media) this.video.currentTime = (frame - this.media.first + 0.5) / this.media.frame_rate;
  },

  toggle() {
    if (this.video.paused) this.video.play();
    else this.video.pause();
  },
};

function presented(_, { mediaTime }) {
  player.draw();
  if (player.media && !player.video.paused) player.onframe(Math.round(mediaTime * player.media.frame_rate));
  player.video.requestVideoFrameCallback(presented);
}
player.build();
player.video.requestVideoFrameCallback(presented);
player.video.addEventListener("loadeddata", () => player.draw());
player.video.addEventListener("seeked", () => player.draw());
for (const event of ["play", "pause"]) {
  player.video.addEventListener(event, () => {
    const playing = !player.video.paused;
    $("play").classList.toggle("playing", playing);
    $("play").title = playing ? "Pause" : "Play";
    $("play").setAttribute("aria-label", $("play").title);
  });
}
$("view").addEventListener("change", () => {
  $("player").classList.toggle("wiping", player.wiping);
  player.resize();
});
for (const field of ["wipe", "left", "right"]) $(field).addEventListener("input", () => player.draw());
$("speed").addEventListener("change", () => {
  player.video.playbackRate = player.video.defaultPlaybackRate = Number($("speed").value);
});
$("play").addEventListener("click", () => player.toggle());
