// The page: who is there, what is shown, and the stream that keeps it fresh.

import { ask, listen, Refused, setToken, token } from "./api.js";
import { h, silent } from "./dom.js";
import { alarms } from "./alarms.js";
import { kpi } from "./kpi.js";
import { overview } from "./overview.js";
import { sites } from "./sites.js";
import { tunnel } from "./tunnel.js";

const PAGES = [["", "Overview", overview], ["sites", "Sites", sites], ["alarms", "Alarms", alarms], ["kpi", "Indicators", kpi]];
const RETRY = 2000;

/** What all pages know: the host, the last status, recent events, and the page that is shown. */
const app = { info: null, status: null, events: [], page: null, may: (role) => rank(app.info?.your_role) >= rank(role), say };
const rank = (role) => ["viewer", "operator", "admin"].indexOf(role);
const element = (id) => document.getElementById(id);

function say(text) {
  element("said").textContent = text;
}

async function show() {
  app.page?.close?.();
  app.page = null;
  say("");
  const [name, ...rest] = location.hash.slice(1).split("/").map(decoded);
  const make = name === "tunnel" ? tunnel : (PAGES.find(([page]) => page === name) ?? PAGES[0])[2];
  const pages = PAGES.filter(([page]) => page !== "sites" || app.info.role === "hub");
  element("nav").replaceChildren(
    ...pages.map(([page, title]) => h("a", { href: `#${page}`, "aria-current": page === name ? "page" : false }, title)),
    h("a", { href: "/docs" }, "API"),
    h("button", { type: "button", click: leave }, "Sign out"),
  );
  const main = element("main");
  try {
    const page = await make(app, ...rest);
    app.page = page;
    main.replaceChildren(page.element);
    page.update?.();
  } catch (error) {
    main.replaceChildren(h("p", {}, error.message));
  }
}

/** What stands in a hash: as it is written, where that is no encoding of anything. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function follow() {
  for (;;) {
    try {
      let begun = false;
      await listen((name, data) => {
        if (name === "status") told(data);
        else heard(data);
        app.page?.update?.(name, data);
        if (!begun) catchUp();
        begun = true;
      });
    } catch (error) {
      if (error instanceof Refused && error.status === 401) return leave();
    }
    element("link").textContent = "No connection to the portal";
    await new Promise((resume) => setTimeout(resume, RETRY));
  }
}

function told(status) {
  app.status = status;
  const text = silent(status) ? "The supervisor is silent: what is shown is of before" : "";
  if (element("link").textContent !== text) element("link").textContent = text;
}

/** The stream and the history may both tell of an event. */
function heard(...events) {
  const all = new Map([...events, ...app.events].map((event) => [`${event.t} ${event.text}`, event]));
  app.events = [...all.values()].sort((a, b) => a.t - b.t).slice(-100);
}

/** What happened while nobody listened; `again` tells a page that what it asked for before may be over. */
async function catchUp() {
  try {
    heard(...(await ask("events?limit=50")).events);
    app.page?.update?.("again");
  } catch (error) {
    say(error.message);
  }
}

function leave() {
  setToken(null);
  location.hash = "";
  location.reload();
}

function signIn(problem = "") {
  const field = h("input", { type: "password", id: "token", autocomplete: "current-password", required: true });
  const submit = async (event) => {
    event.preventDefault();
    setToken(field.value.trim());
    begin();
  };
  element("main").replaceChildren(
    h("form", { class: "sign-in", submit },
      h("h2", {}, "Sign in"),
      h("label", { for: "token" }, "Token, as made by “mpq-supervisor token”"),
      field,
      h("button", { type: "submit" }, "Sign in"),
    ),
  );
  say(problem);
  field.focus();
}

async function begin() {
  if (!token()) return signIn();
  try {
    app.info = await ask("system/info");
    const tunnels = await ask("tunnels");
    app.status = { t: app.info.time, uptime: app.info.uptime, sites: app.info.sites, tunnels };
    app.events = (await ask("events?limit=50")).events;
  } catch (error) {
    if (error.status === 401 || error.status === 429) return setToken(null), signIn(error.message);
    return say(error.message);
  }
  document.title = `${app.info.name} – mpq`;
  element("host").textContent = `${app.info.role} ${app.info.name}`;
  addEventListener("hashchange", show);
  await show();
  follow();
}

begin();
