// Elements, and numbers as people read them.

/** An element with attributes (functions: listeners), its children text or elements; null children are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

export const unknown = "–";
export const ms = (seconds) => (seconds == null ? unknown : `${(seconds * 1e3).toFixed(1)} ms`);
export const percent = (ratio, digits = 1) => (ratio == null ? unknown : `${(ratio * 100).toFixed(digits)} %`);
export const rate = (bits) => `${(bits / 1e6).toFixed(bits < 1e7 ? 2 : 0)} Mbit/s`;
export const clock = (t) => new Date(t * 1e3).toLocaleString();

export function bytes(count = 0) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let place = 0;
  while (count >= 1000 && place < units.length - 1) [count, place] = [count / 1000, place + 1];
  return `${count.toFixed(place ? 1 : 0)} ${units[place]}`;
}

export function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** A table: heads, and rows of cells; the first cell of a row is its head. */
export function table(caption, heads, rows) {
  const cell = (value, place) => h(place ? "td" : "th", place ? {} : { scope: "row" }, value);
  return h(
    "div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {},
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map(cell)))),
    ),
  );
}

/** Whether the supervisor has said nothing for so long that nobody knows how the tunnels are. */
export const silent = (status) => status.age >= 5;

/** The tunnel's state as a word with its colour. */
export const SERVING = new Set(["UP", "REPLACING", "DRAINING", "RETIRING"]);
export const mood = (state) =>
  SERVING.has(state) ? "good" : state === "STOPPED" || state === "WAITING" || state === "STARTING" ? "idle" : "bad";
export const badge = (state) => h("span", { class: `badge ${mood(state)}` }, state);

export function eventList(events) {
  if (!events.length) return h("p", {}, "Nothing happened.");
  const rows = [...events].reverse().map((event) => [clock(event.t), event.kind, event.text]);
  return table("Events", ["Time", "Kind", "What"], rows);
}
