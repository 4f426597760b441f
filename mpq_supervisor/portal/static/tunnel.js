// One tunnel: how it is, how it was, and what may be done to it.

import { ask } from "./api.js";
import { chart } from "./charts.js";
import { badge, bytes, duration, eventList, h, ms, percent, rate, unknown } from "./dom.js";
import { fields } from "./fields.js";

const RANGES = [["5 min", 300], ["1 h", 3600], ["6 h", 21600], ["2 days", 172800], ["30 days", 2592000], ["1 year", 31622400]];
const FRESH = 3600;
const REFRESH = 5000;

export async function tunnel(app, name) {
  const state = h("p", { role: "status" });
  const facts = h("dl", {});
  const events = h("section", { "aria-label": "Events of this tunnel" });
  let [since, until, span] = [null, null, 300];

  const zoom = (from, to) => ([since, until] = [Math.floor(from), Math.ceil(to)], load());
  const mbit = (key) => (point) => (point.seconds ? (point[key] * 8) / point.seconds / 1e6 : null);
  const charts = [
    chart("Round trip", [["mean", (p) => p.rtt], ["highest", (p) => p.rtt_max]], ms, 0.05, zoom, name),
    chart("Loss", [["sent", (p) => p.loss_tx], ["received", (p) => p.loss_rx]], (v) => percent(v), 0.01, zoom, name),
    chart("Throughput", [["in", mbit("bytes_in")], ["out", mbit("bytes_out")]], (v) => `${v.toFixed(1)} Mbit/s`, 1, zoom, name),
  ];
  const ranges = RANGES.map(([title, seconds]) =>
    h("button", { type: "button", "aria-pressed": seconds === span ? "true" : "false", click: (event) => {
      ranges.forEach((button) => button.setAttribute("aria-pressed", button === event.currentTarget ? "true" : "false"));
      [since, until, span] = [null, null, seconds];
      load();
    } }, title));

  async function load() {
    const end = until ?? Math.ceil(Date.now() / 1e3);
    const begin = since ?? end - span;
    try {
      const query = `since=${begin}&until=${end}`;
      const [series, { events: found }] = await Promise.all([
        ask(`history?name=${encodeURIComponent(name)}&points=600&${query}`),
        ask(`events?name=${encodeURIComponent(name)}&limit=200&${query}`),
      ]);
      charts.forEach((one) => one.set({ ...series, since: begin, until: end }, found));
      events.replaceChildren(eventList(found.slice(-50)));
    } catch (error) {
      if (error.status !== 404) app.say(error.message);
    }
  }

  function update(kind) {
    const t = app.status.tunnels.find((one) => one.name === name);
    if (!t) return state.replaceChildren(`There is no tunnel ${name}.`);
    state.replaceChildren(badge(t.state), ` for ${duration(t.since)}`, t.reason ? `: ${t.reason}` : "");
    const known = [
      ["Class, WAN", `${t.class}, ${t.wan}`], ["Other end", t.remote], ["Inner addresses", t.inner.join(", ")],
      ["RTT, least", `${ms(t.rtt)}, ${ms(t.rtt_min)}`], ["Jitter", ms(t.jitter)],
      ["Loss sent, received", `${percent(t.loss_tx)}, ${percent(t.loss_rx)}`],
      ["In", `${rate(t.rate_in)}, ${bytes(t.bytes_in)}`], ["Out", `${rate(t.rate_out)}, ${bytes(t.bytes_out)}`],
      ["Drops", counters(t.drops)], ["Restarts", `${t.restarts}${t.last_exit ? `, last: ${t.last_exit}` : ""}`],
      ["Process", t.pid ? `${t.pid}, ${bytes(t.pss)}` : unknown],
    ];
    facts.replaceChildren(...known.flatMap(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]));
    if (kind === "event" || kind === "again") load();
  }

  const order = async (action) => {
    try {
      const answer = await ask(`tunnels/${encodeURIComponent(name)}/${action}`, "POST");
      app.say(`${action} of ${name}: ${answer.state}`);
    } catch (error) {
      app.say(`${action} of ${name}: ${error.message}`);
    }
  };
  const button = (action, title) =>
    h("button", { type: "button", disabled: !app.may("operator"), click: () => order(action) }, title);
  const timer = setInterval(() => since === null && span <= FRESH && load(), REFRESH);
  await load();
  return {
    element: h("div", {},
      h("h2", {}, name), state,
      h("div", { class: "row", role: "group", "aria-label": "Orders" },
        button("restart", "Restart"), button("stop", "Stop"), button("start", "Start"),
        app.may("operator") ? null : h("small", {}, "for operators")),
      h("div", { class: "row", role: "group", "aria-label": "Time shown" }, ranges, h("small", {}, "drag in a chart to zoom")),
      charts.map((one) => one.element), facts, fields(app, name), events),
    update,
    close() {
      clearInterval(timer);
      charts.forEach((one) => one.close());
    },
  };
}

const counters = (counts) => Object.entries(counts).map(([name, count]) => `${name} ${count}`).join(", ") || "none";
