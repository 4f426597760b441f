// The API's documentation, out of its own description (OpenAPI 3.1).

import { h, table } from "./dom.js";

const LIMITS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minProperties", "maxProperties", "pattern"];

/** A schema in a few words; a link where it has a name. */
function words(schema) {
  if (!schema) return "";
  if (schema.$ref) return reference(schema.$ref.split("/").pop());
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return h("span", {}, choices.flatMap((one, place) => (place ? [" or ", words(one)] : [words(one)])));
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return h("span", {}, "list of ", words(schema.items));
  if (schema.additionalProperties) return h("span", {}, "by name: ", words(schema.additionalProperties));
  const limits = LIMITS.filter((limit) => limit in schema).map((limit) => `${limit} ${schema[limit]}`);
  return [[schema.type].flat().join(" or ") || "anything", ...limits].join(", ");
}

const reference = (name) => h("a", { href: `#${name}` }, name);
const content = (body) => Object.values(body?.content ?? {})[0]?.schema;
const given = (schema) => (schema && "default" in schema ? JSON.stringify(schema.default) : "");

function operation(path, method, one) {
  const title = `${method.toUpperCase()} ${path}`;
  const parameters = (one.parameters ?? []).map((p) => [
    p.name, p.in, p.required ? "needed" : given(p.schema), words(p.schema), p.description ?? ""]);
  const answers = Object.entries(one.responses).map(([status, answer]) => [status, words(content(answer)), answer.description ?? ""]);
  return h("section", { class: "card", "aria-label": title },
    h("h3", {}, title),
    h("p", {}, one.description ?? one.summary ?? ""),
    h("p", {}, h("small", {}, one.security?.length ? `for: ${one.security[0].bearer.join()}` : "without a token")),
    parameters.length ? table(`Parameters of ${title}`, ["Name", "In", "Default", "Value", ""], parameters) : null,
    one.requestBody ? h("p", {}, "Body (JSON): ", words(content(one.requestBody))) : null,
    table(`Answers of ${title}`, ["Status", "Body", ""], answers));
}

function structure(name, schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([key, value]) => [
    key, (schema.required ?? []).includes(key) ? "needed" : given(value), words(value)]);
  return h("section", { class: "card", id: name, "aria-label": name },
    h("h3", {}, name),
    h("p", {}, schema.description ?? ""),
    rows.length ? table(`Fields of ${name}`, ["Field", "Default", "Value"], rows) : h("p", {}, words(schema)));
}

const main = document.getElementById("main");
try {
  const found = await (await fetch("/api/v1/docs/openapi.json")).json();
  const groups = new Map();
  for (const [path, methods] of Object.entries(found.paths)) {
    for (const [method, one] of Object.entries(methods)) {
      const tag = one.tags?.[0] ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? []), operation(path, method, one)]);
    }
  }
  main.replaceChildren(
    h("p", {}, `${found.info.description} Version ${found.info.version}.`),
    ...[...groups].flatMap(([tag, operations]) => [h("h2", {}, tag), ...operations]),
    h("h2", {}, "Structures"),
    ...Object.entries(found.components.schemas).map(([name, schema]) => structure(name, schema)));
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
} catch (error) {
  main.replaceChildren(h("p", {}, `The description cannot be read: ${error.message}`));
}
