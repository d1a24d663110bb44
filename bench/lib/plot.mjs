/**
 * Line charts as SVG, readable on light and dark pages: `lineChart` returns the text of a file.
 *
 * Each series has a colour and a marker of its own, so a reader who sees no colours can tell them apart.
 */

const WIDTH = 760;
const HEIGHT = 420;
const PLOT = { left: 84, right: 24, top: 56, bottom: 88 };
/** Of Okabe and Ito's palette, which differ for colour-blind readers too: on a light and on a dark page. */
const COLOURS = [
  ['#0072b2', '#56b4e9'],
  ['#d55e00', '#e69f00'],
  ['#00795a', '#2fc79a'],
  ['#a8437a', '#cc79a7'],
  ['#4d4d4d', '#c9c9c9'],
];
const MARKERS = [
  (x, y) => `M${x - 4} ${y}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z`,
  (x, y) => `M${x - 4} ${y - 4}h8v8h-8z`,
  (x, y) => `M${x} ${y - 5}l5 9h-10z`,
  (x, y) => `M${x} ${y - 5.5}l5.5 5.5l-5.5 5.5l-5.5 -5.5z`,
  (x, y) => `M${x} ${y + 5}l5 -9h-10z`,
];
/** Of lines that lie on each other, the ones below show in the gaps. */
const DASHES = ['none', 'none', '9 6', '3 5', '12 4 3 4'];
/** More points than this are drawn without markers. */
const MAX_MARKED = 40;

function escaped(text) {
  return String(text).replace(/[&<>"]/g, (one) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[one]);
}

/** A number as readers expect it on an axis: 1000 as 1,000, and without digits that say nothing. */
export function tickLabel(value) {
  if (value === 0) return '0';
  if (Math.abs(value) >= 1) return Number(value.toPrecision(6)).toLocaleString('en-US', { maximumFractionDigits: 2 });
  return String(Number(value.toPrecision(3)));
}

/** The ticks of a logarithmic axis: decades, and 2 and 5 of each if there are few decades. */
function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const steps = decades > 2.5 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const step of steps) ticks.push(step * 10 ** power);
  return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
}

function linearTicks(high) {
  const rough = high / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, index) => index * step);
}

/** The range of an axis: a logarithmic one begins and ends at a tick of 1, 2 or 5. */
function axisOf({ label, isLog = false }, values, from, to) {
  const positive = values.filter((value) => value > 0);
  if (!isLog) {
    const high = Math.max(...values, 0) || 1;
    return { label, ticks: linearTicks(high), place: (value) => from + ((to - from) * value) / high };
  }
  const round = (value, up) => {
    const power = 10 ** Math.floor(Math.log10(value) + 1e-9);
    const steps = [1, 2, 5, 10].map((factor) => factor * power);
    return up ? steps.find((one) => one >= value * 0.999) : steps.findLast((one) => one <= value * 1.001);
  };
  const low = round(Math.min(...positive), false);
  const high = round(Math.max(...positive), true);
  const length = Math.log10(high / low) || 1;
  const place = (value) => from + ((to - from) * Math.log10(Math.max(value, low) / low)) / length;
  return { label, ticks: logTicks(low, high), place };
}

/**
 * Returns a chart.
 *
 * @param {{
 *   title: string,
 *   description: string,
 *   x: { label: string, isLog?: boolean },
 *   y: { label: string, isLog?: boolean },
 *   series: readonly { name: string, points: readonly (readonly [x: number, y: number])[] }[],
 * }} chart `description`: what a reader who does not see the picture should know; at most five series
 * @returns {string}
 */
export function lineChart({ title, description, x, y, series }) {
  if (series.length > COLOURS.length) throw new Error(`${series.length} series: a chart has at most ${COLOURS.length}`);
  const points = series.flatMap((one) => one.points);
  const [left, right, top, bottom] = [PLOT.left, WIDTH - PLOT.right, PLOT.top, HEIGHT - PLOT.bottom];
  const across = axisOf(
    x,
    points.map(([value]) => value),
    left,
    right,
  );
  const up = axisOf(
    y,
    points.map(([, value]) => value),
    bottom,
    top,
  );
  const at = (value) => Number(value.toFixed(1));
  const parts = [];
  for (const tick of across.ticks) {
    const place = at(across.place(tick));
    parts.push(`<path class="grid" d="M${place} ${top}V${bottom}"/>`);
    parts.push(`<text x="${place}" y="${bottom + 20}" text-anchor="middle">${tickLabel(tick)}</text>`);
  }
  for (const tick of up.ticks) {
    const place = at(up.place(tick));
    parts.push(`<path class="grid" d="M${left} ${place}H${right}"/>`);
    parts.push(`<text x="${left - 8}" y="${place + 4}" text-anchor="end">${tickLabel(tick)}</text>`);
  }
  parts.push(`<path class="axis" d="M${left} ${top}V${bottom}H${right}"/>`);
  parts.push(`<text x="${(left + right) / 2}" y="${bottom + 42}" text-anchor="middle">${escaped(x.label)}</text>`);
  parts.push(`<text x="${left}" y="${top - 12}">${escaped(y.label)}</text>`);
  series.forEach(({ points: own }, index) => {
    const places = own.map(([valueX, valueY]) => [at(across.place(valueX)), at(up.place(valueY))]);
    parts.push(`<path class="line s${index}" d="M${places.map((place) => place.join(' ')).join('L')}"/>`);
    if (places.length > MAX_MARKED) return;
    parts.push(`<path class="mark s${index}" d="${places.map(([a, b]) => MARKERS[index](a, b)).join('')}"/>`);
  });
  const column = (right - left) / series.length;
  series.forEach(({ name }, index) => {
    const [begin, base] = [at(left + index * column), HEIGHT - 16];
    parts.push(`<path class="line s${index}" d="M${begin} ${base - 4}h28"/>`);
    parts.push(`<path class="mark s${index}" d="${MARKERS[index](begin + 14, base - 4)}"/>`);
    parts.push(`<text x="${begin + 36}" y="${base}">${escaped(name)}</text>`);
  });
  const colours = (which) =>
    COLOURS.slice(0, series.length)
      .map((pair, index) => `.line.s${index}{stroke:${pair[which]}}.mark.s${index}{fill:${pair[which]}}`)
      .join('');
  const dashes = DASHES.slice(0, series.length)
    .map((dash, index) => `.line.s${index}{stroke-dasharray:${dash}}`)
    .join('');
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="t d">
<title id="t">${escaped(title)}</title>
<desc id="d">${escaped(description)}</desc>
<style>
text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:15px}.page{fill:#fff}
.grid{stroke:#d0d7de;fill:none}.axis{stroke:#57606a;fill:none}.line{fill:none;stroke-width:2}
${dashes}
${colours(0)}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.grid{stroke:#30363d}.axis{stroke:#8b949e}
${colours(1)}}
</style>
<rect class="page" width="${WIDTH}" height="${HEIGHT}"/>
<text class="title" x="${left}" y="22">${escaped(title)}</text>
${parts.join('\n')}
</svg>
`;
}
