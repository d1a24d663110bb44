/** Draws pictures for the sample images: hills at a time of day, as PNG files. */
import { crc32, deflateSync } from 'node:zlib';

const WIDTH = 640;
const HEIGHT = 400;

/** @param {number} seed */
function randomFrom(seed) {
  let state = seed >>> 0 || 1;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/**
 * The line of a range of hills, by midpoint displacement.
 * @param {() => number} random
 * @param {number} roughness
 */
function ridge(random, roughness) {
  const line = new Float64Array(1025);
  line[0] = random();
  line[1024] = random();
  for (let step = 1024, swing = 1; step > 1; step /= 2, swing *= roughness)
    for (let at = step / 2; at < 1024; at += step)
      line[at] = ((line[at - step / 2] ?? 0) + (line[at + step / 2] ?? 0)) / 2 + (random() - 0.5) * swing;
  return line;
}

/** @param {readonly number[]} a @param {readonly number[]} b @param {number} share */
const mix = (a, b, share) => a.map((value, index) => value + ((b[index] ?? 0) - value) * share);

/**
 * @param {number} seed decides the picture
 * @returns {Buffer} a PNG file
 */
export function landscape(seed) {
  const random = randomFrom(seed * 7919);
  const hue = random();
  const top = mix([40, 70, 140], [90, 160, 220], hue);
  const horizon = mix([255, 170, 110], [225, 240, 250], hue);
  const near = mix([20, 30, 40], [30, 80, 50], hue);
  const ridges = Array.from({ length: 5 }, (_, index) => ridge(random, 0.5 + 0.02 * index));
  const sun = { x: WIDTH * (0.2 + 0.6 * random()), y: HEIGHT * (0.25 + 0.2 * random()) };
  const rows = Buffer.alloc(HEIGHT * (1 + WIDTH * 3));
  for (let y = 0; y < HEIGHT; y++)
    for (let x = 0; x < WIDTH; x++) {
      const glow = Math.max(0, 1 - Math.hypot(x - sun.x, y - sun.y) / 130) ** 2;
      let colour = mix(mix(top, horizon, y / (HEIGHT * 0.7)), [255, 250, 230], glow);
      for (const [index, line] of ridges.entries()) {
        const height = HEIGHT * (0.45 + 0.11 * index - 0.18 * (line[Math.floor((x / WIDTH) * 1024)] ?? 0));
        if (y > height) colour = mix(mix(horizon, near, (index + 1) / ridges.length), near, (y - height) / HEIGHT);
      }
      const grain = (random() - 0.5) * 6;
      for (const [index, value] of colour.entries())
        rows[y * (1 + WIDTH * 3) + 1 + x * 3 + index] = Math.max(0, Math.min(255, value + grain));
    }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(WIDTH, 0);
  header.writeUInt32BE(HEIGHT, 4);
  // 8 bits for each of red, green and blue.
  header.set([8, 2], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk('IHDR', header), chunk('IDAT', deflateSync(rows)), chunk('IEND')]);
}

/** @param {string} type @param {Buffer} [data] */
function chunk(type, data = Buffer.alloc(0)) {
  const bytes = Buffer.concat([Buffer.alloc(4), Buffer.from(type, 'latin1'), data, Buffer.alloc(4)]);
  bytes.writeUInt32BE(data.length, 0);
  bytes.writeUInt32BE(crc32(bytes.subarray(4, -4)), bytes.length - 4);
  return bytes;
}
