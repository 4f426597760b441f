// What is wrong now, who knows it, and what is kept quiet.

import { ask } from "./api.js";
import { clock, h, table, unknown } from "./dom.js";

export async function alarms(app) {
  const raised = h("div", {});
  const quiet = h("div", {});
  const minutes = h("input", { type: "number", id: "minutes", min: "1", max: "44640", value: "60", required: true });
  const subject = h("input", { type: "text", id: "subject", maxlength: "64" });
  const reason = h("input", { type: "text", id: "reason", maxlength: "200" });

  const attempt = async (...request) => {
    try {
      await ask(...request);
      await load();
    } catch (error) {
      app.say(error.message);
    }
  };

  async function load() {
    const found = await ask("alarms");
    const acknowledge = (a) => a.acknowledged || (app.may("operator")
      ? h("button", { type: "button", "aria-label": `Acknowledge ${a.id}`,
          click: () => attempt(`alarms/${a.rule}/${a.subject}/acknowledge`, "POST") }, "Acknowledge")
      : unknown);
    raised.replaceChildren(found.alarms.length
      ? table("Raised", ["Alarm", "Of", "Severity", "Since", "Value", "Known to"],
          found.alarms.map((a) => [a.rule, a.subject, a.severity, clock(a.since), a.value.toPrecision(3), acknowledge(a)]))
      : h("p", { class: "verdict good" }, "No alarm is raised."));
    quiet.replaceChildren(found.silences.length
      ? table("Silences", ["Rule", "Of", "Until", "By", "Why", ""], found.silences.map((s) => [
          s.rule || "any", s.subject || "all", clock(s.until), s.by, s.reason,
          app.may("operator") ? h("button", { type: "button", click: () => attempt(`silences/${s.id}`, "DELETE") }, "End") : ""]))
      : "");
  }

  const silence = (event) => {
    event.preventDefault();
    attempt("silences", "POST", { minutes: Number(minutes.value), subject: subject.value.trim(), reason: reason.value.trim() });
  };
  await load();
  return {
    element: h("div", {}, h("h2", {}, "Alarms"), raised, quiet,
      app.may("operator")
        ? h("form", { class: "row", submit: silence },
            h("h3", {}, "Silence"),
            h("label", {}, "Tunnel, WAN or class (empty: all) ", subject),
            h("label", {}, "Minutes ", minutes),
            h("label", {}, "Why ", reason),
            h("button", { type: "submit" }, "Silence"))
        : null),
    update: (kind, data) => (kind === "again" || (kind === "event" && (data.kind === "alarm" || data.kind === "audit"))) && load(),
  };
}
