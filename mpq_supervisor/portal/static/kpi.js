// What a contract is measured by: each class on each day.

import { ask } from "./api.js";
import { bytes, h, ms, percent, table, unknown } from "./dom.js";

export async function kpi(app) {
  const out = h("div", {});
  const days = h("select", { id: "days", change: () => load() },
    [[7, "a week"], [31, "a month"], [92, "three months"], [366, "a year"]].map(([n, title]) => h("option", { value: n }, title)));
  const kind = h("select", { id: "kind", change: () => load() }, h("option", { value: "class" }, "classes"), h("option", { value: "tunnel" }, "tunnels"));

  async function load() {
    try {
      const found = (await ask(`kpi?days=${days.value}`)).filter((one) => one.kind === kind.value);
      const heads = ["Day (UTC)", "Of", "Available", "Seen", "RTT p50", "p95", "p99", "Loss p95", "p99", "In", "Out"];
      const rows = found.reverse().map((one) => [
        one.day, one.name, percent(one.availability, 3), percent(one.seconds_seen / 86400, 0),
        ms(one.rtt.p50), ms(one.rtt.p95), ms(one.rtt.p99), share(one.loss.p95), share(one.loss.p99),
        bytes(one.bytes_in), bytes(one.bytes_out)]);
      out.replaceChildren(rows.length ? table("Indicators", heads, rows) : h("p", {}, "Nothing is recorded yet; the first figures come after five minutes."));
    } catch (error) {
      app.say(error.message);
    }
  }

  await load();
  return {
    element: h("div", {}, h("h2", {}, "Indicators"),
      h("p", {}, "Availability is of the seconds that were recorded and in which nobody had it stopped. A class is available while one of its tunnels is."),
      h("div", { class: "row" }, h("label", { for: "days" }, "Of the last "), days, h("label", { for: "kind" }, "for "), kind), out),
  };
}

const share = (ratio) => (ratio == null ? unknown : percent(ratio, 2));
