// The image with masks and marks: drawing, and what a hand does on it, in pixels of the image.

const DRAG = 5; // pixels a pointer moves before it draws a box
const MARK = 9;

export class Stage {
  // onPoint([x, y], label) and onBox([x0, y0, x1, y1]) are called with what was marked.
  constructor(canvas, container, { onPoint, onBox }) {
    this.canvas = canvas;
    this.container = container;
    this.context = canvas.getContext("2d");
    this.onPoint = onPoint;
    this.onBox = onBox;
    this.tool = "positive";
    this.image = null; // {width, height} of the original, and its picture
    this.scene = { layers: [], chips: [], points: [], box: null, color: [0, 0, 0] };
    this.press = null;
    this.band = null;
    this.cross = null;
    this.corner = null; // first corner of a box set by keys
    new ResizeObserver(() => this.fit()).observe(container);
    addEventListener("resize", () => this.fit());
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.end(event));
    canvas.addEventListener("pointercancel", () => this.drop());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("keydown", (event) => this.type(event));
    canvas.addEventListener("blur", () => { this.cross = this.corner = null; this.draw(); });
  }

  show(image) {
    this.image = image;
    this.press = this.band = this.cross = this.corner = null;
    this.canvas.hidden = !image;
    this.fit();
  }

  choose(tool) {
    this.tool = tool;
    this.corner = null;
    this.canvas.classList.toggle("drawing-box", tool === "box");
  }

  update(scene) {
    this.scene = scene;
    this.draw();
  }

  fit() {
    if (!this.image) return;
    const { width, height } = this.image;
    const isNarrow = innerWidth <= 860;
    const room = Math.max(220, innerHeight * (isNarrow ? 0.56 : 1) - (isNarrow ? 0 : 235));
    const scale = Math.min(this.container.clientWidth / width, room / height);
    const [wide, high] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    const ratio = devicePixelRatio || 1;
    this.canvas.style.width = `${wide}px`;
    this.canvas.style.height = `${high}px`;
    this.canvas.width = Math.round(wide * ratio);
    this.canvas.height = Math.round(high * ratio);
    this.scale = wide / width;
    this.draw();
  }

  place(event) {
    const frame = this.canvas.getBoundingClientRect();
    const { width, height } = this.image;
    const x = (event.clientX - frame.left) / frame.width * width;
    const y = (event.clientY - frame.top) / frame.height * height;
    return [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
  }

  begin(event) {
    if (!this.image || event.button > 2 || event.button === 1) return;
    this.cross = null;
    const isNegative = event.button === 2 || event.altKey || (event.ctrlKey && event.button === 0);
    this.press = { start: this.place(event), at: [event.clientX, event.clientY], isNegative, id: event.pointerId };
    const mayDrag = event.pointerType === "mouse" || this.tool === "box";
    this.press.mayDrag = mayDrag && !isNegative;
    if (this.press.mayDrag) this.canvas.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (!this.press || !this.press.mayDrag) return;
    const [x, y] = this.press.at;
    if (!this.band && Math.hypot(event.clientX - x, event.clientY - y) < DRAG) return;
    this.band = span(this.press.start, this.place(event));
    this.draw();
  }

  end(event) {
    if (!this.press) return;
    const { start, isNegative } = this.press;
    const band = this.band;
    this.drop();
    if (band) {
      if (band[2] - band[0] >= 1 && band[3] - band[1] >= 1) this.onBox(band);
    } else if (isNegative || this.tool !== "box") {
      this.onPoint(start, isNegative || this.tool === "negative" ? 0 : 1);
    }
  }

  drop() {
    this.press = this.band = null;
    this.draw();
  }

  type(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.image) return;
    const { width, height } = this.image;
    if (event.key in arrows) {
      const step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(width, height) / 50));
      const [x, y] = this.cross || [width / 2, height / 2];
      const [dx, dy] = this.cross ? arrows[event.key] : [0, 0];
      this.cross = [Math.min(Math.max(x + dx * step, 0), width), Math.min(Math.max(y + dy * step, 0), height)];
      this.band = this.corner && span(this.corner, this.cross);
      this.draw();
    } else if (event.key === " ") {
      this.cross = this.cross || [width / 2, height / 2];
      this.mark();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  mark() {
    if (this.tool !== "box") this.onPoint(this.cross, this.tool === "negative" ? 0 : 1);
    else if (!this.corner) this.corner = this.cross;
    else {
      const box = span(this.corner, this.cross);
      this.corner = this.band = null;
      if (box[2] > box[0] && box[3] > box[1]) this.onBox(box);
    }
    this.draw();
  }

  draw() {
    if (!this.image) return;
    const ratio = this.canvas.width / (this.image.width * this.scale);
    const context = this.context, scene = this.scene;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.image.picture, 0, 0, this.canvas.width, this.canvas.height);
    for (const layer of scene.layers) context.drawImage(layer, 0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (const chip of scene.chips) this.drawChip(chip);
    const box = this.band || scene.box;
    if (box) this.drawBox(box, scene.color);
    for (const [x, y, label] of scene.points) this.drawMark(x * this.scale, y * this.scale, label);
    if (this.cross) this.drawCross();
  }

  drawBox(box, color) {
    const context = this.context;
    const [x0, y0, x1, y1] = box.map((value) => value * this.scale);
    context.lineWidth = 2;
    context.strokeStyle = "rgb(20 20 20)";
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    context.setLineDash([9, 9]);
    context.strokeStyle = `rgb(${color.join(" ")})`;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    context.setLineDash([]);
  }

  drawMark(x, y, label) {
    const context = this.context;
    const disc = (radius, fill) => {
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fillStyle = fill;
      context.fill();
    };
    disc(MARK + 1, "rgb(0 0 0 / 60%)");
    disc(MARK, "#fff");
    disc(MARK - 1.6, label ? "rgb(24 160 72)" : "rgb(214 40 40)");
    context.fillStyle = "#fff";
    context.fillRect(x - 4.2, y - 1, 8.4, 2);
    if (label) context.fillRect(x - 1, y - 4.2, 2, 8.4);
  }

  drawChip({ text, box, color }) {
    const context = this.context;
    context.font = "600 13px system-ui, sans-serif";
    const [wide, high] = [context.measureText(text).width + 12, 20];
    const limit = [this.image.width * this.scale - wide - 1, this.image.height * this.scale - high - 1];
    const x = Math.max(1, Math.min((box[0] + box[2]) / 2 * this.scale - wide / 2, limit[0]));
    const y = Math.max(1, Math.min(box[1] * this.scale + 4, limit[1]));
    context.beginPath();
    context.roundRect(x, y, wide, high, 4);
    context.fillStyle = `rgb(${color.join(" ")})`;
    context.fill();
    context.lineWidth = 1;
    context.strokeStyle = "rgb(20 20 20)";
    context.stroke();
    const luminance = 0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2];
    context.fillStyle = luminance > 110 ? "#000" : "#fff";
    context.textBaseline = "middle";
    context.fillText(text, x + 6, y + high / 2 + 0.5);
  }

  drawCross() {
    const context = this.context;
    const [x, y] = this.cross.map((value) => value * this.scale);
    for (const [width, color] of [[4, "rgb(0 0 0 / 70%)"], [1.6, "#fff"]]) {
      context.lineWidth = width;
      context.strokeStyle = color;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + 4 * dx, y + 4 * dy);
        context.lineTo(x + 16 * dx, y + 16 * dy);
      }
      context.stroke();
    }
  }
}

function span([ax, ay], [bx, by]) {
  return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
}
