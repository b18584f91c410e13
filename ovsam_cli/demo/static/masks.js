// COCO run lengths to pixels, painted as the previews of `ovsam label` are.

const HALO_OPACITY = 0.55;

// COCO's compressed counts: 5 bits a character from 48 on, bit 6 for more, signed, and from the
// third run on relative to the run before the last.
function parseCounts(text) {
  const counts = [];
  let at = 0;
  while (at < text.length) {
    let value = 0, shift = 0, part;
    do {
      part = text.charCodeAt(at++) - 48;
      value |= (part & 0x1f) << shift;
      shift += 5;
    } while (part & 0x20);
    if (part & 0x10) value |= -1 << shift;
    if (counts.length > 2) value += counts[counts.length - 2];
    counts.push(value);
  }
  return counts;
}

// 1 inside, 0 outside, sampled at width x height; runs go down the columns.
function sampleMask(segmentation, width, height) {
  const [fullHeight, fullWidth] = segmentation.size;
  const mask = new Uint8Array(width * height);
  const columns = Array.from({ length: fullWidth }, () => []);
  for (let x = 0; x < width; x++) columns[Math.floor((x + 0.5) * fullWidth / width)].push(x);
  const row = (y) => Math.ceil(y * height / fullHeight - 0.5);
  let start = 0, isInside = false;
  for (const count of parseCounts(segmentation.counts)) {
    const end = start + count;
    while (isInside && start < end) {
      const column = Math.floor(start / fullHeight);
      const last = Math.min(end, (column + 1) * fullHeight);
      const low = Math.max(0, row(start - column * fullHeight));
      const high = Math.min(height, row(last - column * fullHeight));
      for (const x of columns[column]) for (let y = low; y < high; y++) mask[y * width + x] = 1;
      start = last;
    }
    start = end;
    isInside = !isInside;
  }
  return mask;
}

// How near the mask's edge is, up to `reach` pixels, in two passes over rows and columns.
function erode(mask, width, height, reach) {
  const across = new Uint8Array(mask.length), inner = new Uint8Array(mask.length);
  for (let y = 0; y < height; y++) {
    let run = reach;
    for (let x = 0; x < width; x++) {
      run = mask[y * width + x] ? run + 1 : 0;
      if (run > 2 * reach) across[y * width + x - reach] = 1;
    }
    for (let x = width - reach; x < width; x++) across[y * width + x] = x >= 0 && run > width - 1 - x + reach ? 1 : 0;
  }
  for (let x = 0; x < width; x++) {
    let run = reach;
    for (let y = 0; y < height; y++) {
      run = across[y * width + x] ? run + 1 : 0;
      if (run > 2 * reach) inner[(y - reach) * width + x] = 1;
    }
    for (let y = height - reach; y < height; y++) {
      inner[y * width + x] = y >= 0 && run > height - 1 - y + reach ? 1 : 0;
    }
  }
  return inner;
}

// A canvas of the picture's size with the mask: fill, contour inside its edge, dark halo outside.
export function paintMask(segmentation, width, height, color, opacity) {
  const mask = sampleMask(segmentation, width, height);
  const line = Math.max(2, Math.round(Math.max(width, height) / 500));
  const inner = erode(mask, width, height, line);
  const outside = mask.map((value) => 1 - value);
  const far = erode(outside, width, height, Math.max(1, line - 1));
  const image = new ImageData(width, height);
  const [red, green, blue] = color;
  for (let at = 0; at < mask.length; at++) {
    if (mask[at]) image.data.set([red, green, blue, inner[at] ? 255 * opacity : 255], 4 * at);
    else if (!far[at]) image.data[4 * at + 3] = 255 * HALO_OPACITY;
  }
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
