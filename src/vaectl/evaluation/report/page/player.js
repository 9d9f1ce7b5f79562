// Plays both sides of a clip in sync. They are one video, with the original on the left, so they cannot drift apart. It
// is drawn on a canvas, side by side or one over the other.

const GAP = 6;

const player = {
  media: null, video: Object.assign(document.createElement("video"), { muted: true, loop: true, playsInline: true,
  preload: "auto" }), // Called with the frame whenever playback shows another one. onframe: () => {},

  load(media) {
    this.video.pause();
    this.media = media;
    if (media) this.video.src = media.video;
    else this.video.removeAttribute("src");
    this.video.load();
    this.resize();
  },

  // Pictures are shown at their own size, small ones up to twice that.
  resize() {
    const screen = $("screen");
    if (!this.media) return;
    const { width, height } = this.media;
    screen.width = this.wiping ? width : 2 * width + GAP;
    screen.height = height;
    $("player").style.maxWidth = `${Math.max(2 * screen.width, 240)}px`;
    this.draw();
  },

  get wiping() {
    return $("view").value === "wipe";
  },

  draw() {
    if (!this.media || this.video.readyState < 2) return;
    const { width, height } = this.media;
    const brush = $("screen").getContext("2d");
    const right = this.video.videoWidth / 2;
    brush.clearRect(0, 0, $("screen").width, height);
    brush.drawImage(this.video, 0, 0, width, height, 0, 0, width, height);
    if (!this.wiping) {
      brush.drawImage(this.video, right, 0, width, height, width + GAP, 0, width, height);
      return;
    }
    const edge = Math.round($("wipe").value * width);
    if (edge === width) return;
    brush.drawImage(this.video, right + edge, 0, width - edge, height, edge, 0, width - edge, height);
    brush.fillStyle = "#fff";
    brush.fillRect(edge - 1, 0, 2, height);
  },

  // The middle of the frame, so that rounding cannot select a neighbour.
  seek(frame) {
    if (this.media) this.video.currentTime = (frame + 0.5) / this.media.frame_rate;
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
$("wipe").addEventListener("input", () => player.draw());
$("speed").addEventListener("change", () => {
  player.video.playbackRate = player.video.defaultPlaybackRate = Number($("speed").value);
});
$("play").addEventListener("click", () => player.toggle());
