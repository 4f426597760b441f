// Lines over time by uPlot, with events as marks on the time line.

const PALETTE = ["#2563c9", "#c2410c", "#15803d"];
const HEIGHT = 180;

/** A chart of `lines` ([title, function of a point]) with its values formatted by `show`, from 0 to `least` or more;
 *  `zoom(since, until)` on a drag. */
export function chart(title, lines, show, least, zoom, sync) {
  const box = document.createElement("div");
  box.className = "chart";
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", title);
  let marks = [];
  const ink = () => getComputedStyle(document.body).getPropertyValue("--ink").trim();
  const axis = { stroke: ink, grid: { stroke: "#8883", width: 1 }, ticks: { stroke: "#8883" } };
  const options = {
    title,
    width: 600,
    height: HEIGHT,
    cursor: { sync: { key: sync }, drag: { x: true, y: false, setScale: false } },
    series: [{}, ...lines.map(([label], n) => ({ label, stroke: PALETTE[n], width: 1.5, value: (_, v) => (v == null ? "–" : show(v)) }))],
    scales: { y: { range: (_, low, high) => [0, Math.max(least, (high ?? 0) * 1.1)] } },
    axes: [axis, { ...axis, size: 80, values: (_, ticks) => ticks.map(show) }],
    hooks: {
      setSelect: [(u) => u.select.width > 5 && zoom(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"))],
      draw: [(u) => drawMarks(u, marks)],
    },
  };
  const plot = new uPlot(options, [[], ...lines.map(() => [])], box);
  const fit = new ResizeObserver(([entry]) => plot.setSize({ width: Math.max(200, entry.contentRect.width), height: HEIGHT }));
  fit.observe(box);
  return {
    element: box,
    set(series, events) {
      marks = events.map((event) => event.t);
      const [t, points] = filled(series);
      plot.setData([t, ...lines.map(([, value]) => points.map((point) => (point ? value(point) : null)))]);
      plot.setScale("x", { min: series.since, max: series.until });
    },
    close() {
      fit.disconnect();
      plot.destroy();
    },
  };
}

/** Times and points, with a hole wherever nothing was recorded. */
function filled(series) {
  const t = [], points = [];
  for (const point of series.points) {
    if (t.length && point.t - t.at(-1) > series.step) t.push(t.at(-1) + series.step), points.push(null);
    t.push(point.t), points.push(point);
  }
  return [t, points];
}

function drawMarks(u, marks) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = "#dc262688";
  ctx.beginPath();
  for (const mark of marks) {
    const x = u.valToPos(mark, "x", true);
    if (x >= bbox.left && x <= bbox.left + bbox.width) ctx.moveTo(x, bbox.top), ctx.lineTo(x, bbox.top + bbox.height);
  }
  ctx.stroke();
  ctx.restore();
}
