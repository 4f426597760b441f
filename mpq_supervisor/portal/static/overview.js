// What a person reads in three seconds: is it up, and if not, what is wrong.

import { ask } from "./api.js";
import { badge, eventList, h, ms, mood, percent, rate, SERVING, silent } from "./dom.js";

const WORST = 5;

export async function overview(app) {
  const verdict = h("p", { class: "verdict", role: "status" });
  const wrong = h("ul", { class: "wrong" });
  const grid = h("div", { class: "grid" });
  const events = h("section", { "aria-label": "Latest events" });
  let alarms = (await ask("alarms")).alarms;

  function update(kind, data) {
    const { tunnels } = app.status;
    const down = tunnels.filter((t) => !SERVING.has(t.state));
    const quiet = silent(app.status);
    const text = quiet ? "How the tunnels are is not known: the supervisor is silent" : down.length ? `${down.length} of ${tunnels.length} tunnels do not serve` : `All ${tunnels.length} tunnels serve`;
    if (verdict.textContent !== text) verdict.textContent = text;
    verdict.className = `verdict ${quiet || down.some((t) => mood(t.state) === "bad") ? "bad" : down.length ? "idle" : "good"}`;
    wrong.replaceChildren(
      ...alarms.slice(0, WORST).map((a) => h("li", {}, h("a", { href: "#alarms" }, `${a.rule}: ${a.subject}`))),
      ...down.map((t) => h("li", {}, link(t), " ", badge(t.state), ` ${t.reason}`)),
    );
    const focused = document.activeElement?.id;
    grid.replaceChildren(...wans(tunnels));
    if (focused) document.getElementById(focused)?.focus();
    if (kind !== "status") events.replaceChildren(eventList(app.events.slice(-10)));
    if (kind === "again" || (kind === "event" && data.kind === "alarm")) ask("alarms").then((found) => ((alarms = found.alarms), update()));
  }

  return { element: h("div", {}, h("h2", {}, "Overview"), verdict, wrong, grid, events), update };
}

const link = (tunnel) => h("a", { id: `t-${tunnel.name}`, href: `#tunnel/${encodeURIComponent(tunnel.name)}` }, tunnel.name);

/** A card for each WAN or listener with its tunnels. */
function wans(tunnels) {
  const names = [...new Set(tunnels.map((t) => t.wan))];
  return names.map((name) => {
    const members = tunnels.filter((t) => t.wan === name);
    const sum = (key) => members.reduce((total, t) => total + t[key], 0);
    return h("section", { class: "card", "aria-label": name },
      h("h3", {}, name, h("small", {}, ` in ${rate(sum("rate_in"))}, out ${rate(sum("rate_out"))}`)),
      h("table", {},
        h("thead", {}, h("tr", {}, ["Tunnel", "State", "RTT", "Loss", "In", "Out"].map((t) => h("th", { scope: "col" }, t)))),
        h("tbody", {}, members.map((t) =>
          h("tr", {}, h("th", { scope: "row" }, link(t), h("small", {}, ` ${t.class}`)),
            [badge(t.state), ms(t.rtt), percent(worst(t)), rate(t.rate_in), rate(t.rate_out)].map((cell) => h("td", {}, cell)),
          ))),
      ),
    );
  });
}

const worst = (t) => (t.loss_tx == null && t.loss_rx == null ? null : Math.max(t.loss_tx ?? 0, t.loss_rx ?? 0));
