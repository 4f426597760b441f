// The fields of the configuration that a tunnel depends on: looked at by everybody, changed by admins.

import { ask } from "./api.js";
import { h } from "./dom.js";

const EFFECTS = { hot: "at once", restart: "restarts", none: "from the supervisor's next start" };
const FATES = { restart: "restarts", add: "starts", remove: "stops for good", sites: "is told its sites" };
const COUPLED = "the other end has to follow";

/** A part of the page that is closed at first; asked for when it is opened. */
export function fields(app, name) {
  const path = `tunnels/${encodeURIComponent(name)}/config`;
  const list = h("div", { class: "fields" });
  const told = h("div", { role: "status", tabindex: "-1", class: "told" });
  const check = h("button", { type: "submit" }, "Check");
  const apply = h("button", { type: "button", disabled: true, click: () => send(false) }, "Apply");
  const admin = app.may("admin");
  let known = [];

  const effect = (field) => EFFECTS[field.effect] + (field.coupled ? `; ${COUPLED}` : "");
  const changes = () => Object.fromEntries(known
    .map(({ field, input }) => [field, input.value.trim()])
    .filter(([field, text]) => text !== written(field.value))
    .map(([field, text]) => [field.path, meant(text, field.value)]));

  async function load() {
    try {
      known = (await ask(path)).map((field, n) => ({ field, input: h("input", {
        id: `field-${n}`, type: "text", value: written(field.value), placeholder: "default", readonly: !admin,
        autocomplete: "off", "aria-describedby": `effect-${n}`, input: () => { apply.disabled = true; },
      }) }));
      list.replaceChildren(...known.flatMap(({ field, input }, n) => [
        h("label", { for: input.id }, field.path), input, h("small", { id: `effect-${n}` }, effect(field))]));
    } catch (error) {
      tell(error.message);
    }
  }

  async function send(onlyTry) {
    const wanted = changes();
    apply.disabled = true;
    if (!Object.keys(wanted).length) return tell("No field differs.");
    try {
      const answer = await ask(onlyTry ? `${path}?only_try=true` : path, "PATCH", { changes: wanted });
      if (!onlyTry) await load();
      tell(onlyTry ? "This would change:" : "Changed, in the file and in what runs:",
        ...answer.fields.map((one) => `${one.path}: ${one.old ?? "default"} → ${one.new ?? "default"} (${effect(one)})`),
        ...Object.entries(answer.workers).map(([worker, fate]) => `${worker} ${FATES[fate]}`));
      apply.disabled = !onlyTry;
    } catch (error) {
      tell(error.message, ...(error.extra ?? []));
    }
  }

  function tell(first, ...lines) {
    told.replaceChildren(h("p", {}, first), lines.length ? h("ul", {}, lines.map((line) => h("li", {}, line))) : "");
    told.focus();
  }

  const submit = (event) => {
    event.preventDefault();
    send(true);
  };
  const opened = (event) => event.currentTarget.open && !known.length && load();
  return h("details", { class: "card", toggle: opened },
    h("summary", {}, "Configuration"),
    h("p", {}, "Fields of this WAN or listener, and of the class: a change is one to all tunnels that share them. Empty is the default."),
    h("form", { submit }, list, told,
      h("div", { class: "row" }, admin ? [check, apply] : h("small", {}, "Changes are for admins."))));
}

/** A value as people write it. */
const written = (value) => (value == null ? "" : Array.isArray(value) ? value.join(", ") : String(value));

/** What a text means in the place of `before`: numbers are JSON's; what is wrong with others, the supervisor says. */
function meant(text, before) {
  if (text === "") return null;
  if (Array.isArray(before) || text.includes(",")) return text.split(",").map((part) => part.trim()).filter(Boolean);
  if (typeof before === "string") return text;
  return text === "true" || text === "false" || /^-?(0|[1-9]\d{0,14})(\.\d+)?$/.test(text) ? JSON.parse(text) : text;
}
