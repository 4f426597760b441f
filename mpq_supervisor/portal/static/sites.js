// The hub's sites and their connections.

import { ask } from "./api.js";
import { bytes, duration, h, ms, percent, table } from "./dom.js";

export async function sites(app) {
  const out = h("div", {});
  const { guarded } = await ask("system/info");
  const dropped = Object.entries(guarded).map(([name, count]) => `${name} ${count}`).join(", ");
  function update() {
    const rows = app.status.tunnels.flatMap((worker) => worker.sites.map((site) => [
      site.site, worker.name, `${site.peer[0]} port ${site.peer[1]}`, duration(site.since), ms(site.path.rtt),
      percent(site.path.loss_tx), bytes(site.bytes_in), bytes(site.bytes_out)]));
    const connected = new Set(rows.map(([name]) => name));
    const away = app.status.sites.filter((name) => !connected.has(name)).map((name) => [name, "", "not connected", "", "", "", "", ""]);
    rows.sort(([a], [b]) => a.localeCompare(b));
    out.replaceChildren(table("Sites", ["Site", "Worker", "From", "For", "RTT", "Loss sent", "In", "Out"], [...away, ...rows]));
  }
  return { element: h("div", {}, h("h2", {}, "Sites"), out,
    h("p", {}, `Packets of strangers dropped in nftables: ${dropped || "none"}`)), update };
}
